package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/client"
)

// What administrators do about people: who may log in, with which tokens programs come, who changed what.

type userCommand struct {
	List     userList     `cmd:"" help:"List users."`
	Create   userCreate   `cmd:"" help:"Make a user; the password is made and shown once."`
	Set      userSet      `cmd:"" help:"Change a user's role, or disable or enable them."`
	Password userPassword `cmd:"" help:"Give a user a new password; it ends all of their logins."`
	Delete   userDelete   `cmd:"" help:"Delete a user with their tokens."`
}

type userView struct {
	ID, Email, Role string
	Disabled        bool
	CreatedAt       time.Time
}

func userTable(a *app, items []userView) error {
	rows := make([][]string, len(items))
	for i, u := range items {
		state := "may log in"
		if u.Disabled {
			state = "disabled"
		}
		rows[i] = []string{u.Email, u.Role, state, ago(u.CreatedAt), u.ID}
	}
	return a.table([]string{"USER", "ROLE", "STATE", "MADE", "ID"}, rows)
}

type userList struct {
	Limit int `help:"How many at the most." default:"50"`
}

func (c *userList) Run(a *app) error {
	return list(a, "/users", nil, c.Limit, func(items []userView) error { return userTable(a, items) })
}

// findUser gives the id of a user by id or e-mail address.
func findUser(a *app, c *client.Client, ref string) (string, error) {
	if !strings.Contains(ref, "@") {
		return url.PathEscape(ref), nil
	}
	q := url.Values{"limit": {fmt.Sprint(pageSize)}}
	for {
		var page struct {
			Items      []userView
			NextCursor string
		}
		if _, err := c.Do(a.ctx, "GET", "/users?"+q.Encode(), nil, &page); err != nil {
			return "", err
		}
		for _, u := range page.Items {
			if strings.EqualFold(u.Email, ref) {
				return url.PathEscape(u.ID), nil
			}
		}
		if page.NextCursor == "" {
			return "", fmt.Errorf("there is no user %q", ref)
		}
		q.Set("cursor", page.NextCursor)
	}
}

type userCreate struct {
	Email string `arg:"" help:"E-mail address."`
	Role  string `help:"viewer (reads), editor (draws and starts flows), operator (steers all that runs), admin." enum:"viewer,editor,operator,admin" required:""`
}

// Run prints the password, which can't be shown again.
func (u *userCreate) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	var made json.RawMessage
	if _, err := c.Do(a.ctx, "POST", "/users", map[string]any{"email": u.Email, "role": u.Role}, &made); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	var v struct{ Email, Role, Password string }
	if err := json.Unmarshal(made, &v); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s may log in as %s with the password %s (shown once)\n", printable(v.Email), v.Role, v.Password)
	return nil
}

// changeUser sends a change, and shows the user as it is then.
func changeUser(a *app, ref string, change map[string]any) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	id, err := findUser(a, c, ref)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if _, err := c.Do(a.ctx, "PATCH", "/users/"+id, change, &raw); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(raw)
	}
	var u userView
	if err := json.Unmarshal(raw, &u); err != nil {
		return err
	}
	return userTable(a, []userView{u})
}

type userSet struct {
	User    string `arg:"" help:"E-mail address, or id."`
	Role    string `help:"The new role." enum:",viewer,editor,operator,admin" default:""`
	Disable bool   `help:"Their logins and tokens are refused from now on." xor:"state"`
	Enable  bool   `help:"They may log in again." xor:"state"`
}

func (u *userSet) Run(a *app) error {
	change := map[string]any{}
	if u.Role != "" {
		change["role"] = u.Role
	}
	if u.Disable || u.Enable {
		change["disabled"] = u.Disable
	}
	if len(change) == 0 {
		return errors.New("say what to change: --role, --disable or --enable")
	}
	return changeUser(a, u.User, change)
}

type userPassword struct {
	User         string `arg:"" help:"E-mail address, or id."`
	PasswordFile string `help:"File that holds the new password; otherwise it is asked for, or read from standard input." type:"existingfile"`
}

func (u *userPassword) Run(a *app) error {
	password, err := (&loginCommand{PasswordFile: u.PasswordFile}).password(a, bufio.NewReader(a.in))
	if err != nil {
		return err
	}
	return changeUser(a, u.User, map[string]any{"password": password})
}

type userDelete struct {
	User string `arg:"" help:"E-mail address, or id."`
}

func (u *userDelete) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	id, err := findUser(a, c, u.User)
	if err != nil {
		return err
	}
	return gone(a, c, "/users/"+id, "the user "+u.User)
}

// gone deletes something, and says so.
func gone(a *app, c *client.Client, path, what string) error {
	if _, err := c.Do(a.ctx, "DELETE", path, nil, nil); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]bool{"deleted": true})
	}
	fmt.Fprintf(a.out, "%s is deleted\n", printable(what))
	return nil
}

type apiTokenCommand struct {
	List   apiTokenList   `cmd:"" help:"List your API tokens."`
	Create apiTokenCreate `cmd:"" help:"Make an API token; its text is shown once."`
	Revoke apiTokenRevoke `cmd:"" help:"Revoke an API token: nobody gets in with it any more."`
}

type apiTokenList struct {
	Limit int `help:"How many at the most." default:"50"`
}

func (c *apiTokenList) Run(a *app) error {
	type token struct {
		ID, Name, Role                   string
		Queues                           []string
		RateLimit                        int
		CreatedAt, ExpiresAt, LastUsedAt time.Time
	}
	return list(a, "/tokens", nil, c.Limit, func(items []token) error {
		rows := make([][]string, len(items))
		for i, t := range items {
			limit := map[int]string{0: "default", -1: "none"}[t.RateLimit]
			if limit == "" {
				limit = fmt.Sprint(t.RateLimit)
			}
			rows[i] = []string{t.Name, t.Role, strings.Join(t.Queues, ","), limit, ago(t.CreatedAt), ago(t.LastUsedAt), when(t.ExpiresAt), t.ID}
		}
		return a.table([]string{"NAME", "ROLE", "QUEUES", "LIMIT", "MADE", "USED", "EXPIRES", "ID"}, rows)
	})
}

type apiTokenCreate struct {
	Name      string        `arg:"" help:"What it is for."`
	Role      string        `help:"At most your own; yours if absent." enum:",viewer,editor,operator,admin" default:""`
	Expires   time.Duration `help:"How long it is good for, like 720h; for ever if absent." placeholder:"DURATION"`
	RateLimit int           `help:"Requests a minute: 0 is the platform's own limit, -1 none. Other than 0 only by administrators."`
}

// Run prints the token's text, which can't be shown again.
func (k *apiTokenCreate) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	body := map[string]any{"name": k.Name}
	if k.Role != "" {
		body["role"] = k.Role
	}
	if k.Expires > 0 {
		body["expiresAt"] = time.Now().Add(k.Expires).UTC().Format(time.RFC3339)
	}
	if k.RateLimit != 0 {
		body["rateLimit"] = k.RateLimit
	}
	return newToken(a, c, body)
}

// newToken makes a token and prints its text.
func newToken(a *app, c *client.Client, body map[string]any) error {
	var made json.RawMessage
	if _, err := c.Do(a.ctx, "POST", "/tokens", body, &made); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	var v struct{ Token string }
	if err := json.Unmarshal(made, &v); err != nil {
		return err
	}
	fmt.Fprintln(a.out, v.Token)
	return nil
}

type apiTokenRevoke struct {
	ID string `arg:"" help:"Id of the token."`
}

func (k *apiTokenRevoke) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	return gone(a, c, "/tokens/"+url.PathEscape(k.ID), "the token "+k.ID)
}

type auditCommand struct {
	Limit int `help:"How many at the most." default:"50"`
}

// Run lists who changed what, the newest first.
func (c *auditCommand) Run(a *app) error {
	type entry struct {
		At                              time.Time
		Actor, Action, Object, ObjectID string
		Detail                          json.RawMessage
	}
	return list(a, "/audit", nil, c.Limit, func(items []entry) error {
		rows := make([][]string, len(items))
		for i, e := range items {
			detail := []rune(compact(e.Detail))
			rows[i] = []string{when(e.At), e.Actor, e.Action, e.Object, e.ObjectID, string(detail[:min(len(detail), 80)])}
		}
		return a.table([]string{"AT", "WHO", "DID", "TO", "ID", "DETAIL"}, rows)
	})
}
