package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

type credentialCommands struct {
	List   credentialList   `cmd:"" help:"List credentials; never their secrets."`
	Types  credentialTypes  `cmd:"" help:"List the types of credentials with their fields."`
	Create credentialCreate `cmd:"" help:"Store a credential; its secret comes from standard input or a file."`
	Test   credentialTest   `cmd:"" help:"Try a credential out: connect to its server."`
	Delete credentialDelete `cmd:"" help:"Delete a credential."`
}

type credentialView struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Type      string         `json:"type"`
	Public    map[string]any `json:"public"`
	KeyID     string         `json:"keyId"`
	UpdatedAt time.Time      `json:"updatedAt"`
}

type credentialList struct {
	Limit int    `help:"How many at the most." default:"50"`
	Type  string `help:"Only these types, by comma." placeholder:"TYPE"`
}

func (c *credentialList) Run(a *app) error {
	q := url.Values{}
	if c.Type != "" {
		q.Set("type", c.Type)
	}
	return list(a, "/credentials", q, c.Limit, func(items []credentialView) error {
		rows := make([][]string, len(items))
		for i, v := range items {
			public, err := json.Marshal(v.Public)
			if err != nil {
				return err
			}
			rows[i] = []string{v.ID, v.Name, v.Type, string(public), ago(v.UpdatedAt)}
		}
		return a.table([]string{"ID", "NAME", "TYPE", "PUBLIC", "UPDATED"}, rows)
	})
}

// fieldSchema is what flowctl reads of the schema of a type's fields.
type fieldSchema struct {
	Properties map[string]struct {
		Type  string `json:"type"`
		Title string `json:"title"`
	} `json:"properties"`
	Required []string `json:"required"`
	Order    []string `json:"x-order"`
}

type credentialType struct {
	Type   string      `json:"type"`
	Title  string      `json:"title"`
	Public fieldSchema `json:"public"`
	Secret fieldSchema `json:"secret"`
}

func (a *app) credentialTypes() ([]credentialType, json.RawMessage, error) {
	api, err := a.api()
	if err != nil {
		return nil, nil, err
	}
	var raw json.RawMessage
	if _, err := api.Do(a.ctx, "GET", "/catalog/credentials", nil, &raw); err != nil {
		return nil, nil, err
	}
	var page struct {
		Items []credentialType `json:"items"`
	}
	if err := json.Unmarshal(raw, &page); err != nil {
		return nil, nil, fmt.Errorf("the types of credentials are not what this flowctl knows: %w", err)
	}
	return page.Items, raw, nil
}

type credentialTypes struct{}

func (c *credentialTypes) Run(a *app) error {
	types, raw, err := a.credentialTypes()
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(raw)
	}
	var rows [][]string
	for _, t := range types {
		rows = append(rows, []string{t.Type, t.Title, strings.Join(t.Public.Order, " "), strings.Join(t.Secret.Order, " ")})
	}
	return a.table([]string{"TYPE", "TITLE", "PUBLIC", "SECRET"}, rows)
}

type credentialCreate struct {
	Name   string   `arg:"" help:"Name, by which flows name it."`
	Type   string   `required:"" help:"Type: flowctl credential types." placeholder:"TYPE"`
	Set    []string `short:"s" sep:"none" help:"A public field." placeholder:"FIELD=VALUE"`
	Secret string   `help:"File with the secret, - for standard input: its first line for a type with one secret field, or a JSON object of the fields. Never on the command line, which others can read." default:"-" placeholder:"FILE"`
}

func (c *credentialCreate) Run(a *app) error {
	types, _, err := a.credentialTypes()
	if err != nil {
		return err
	}
	var typ *credentialType
	var names []string
	for i := range types {
		names = append(names, types[i].Type)
		if types[i].Type == c.Type {
			typ = &types[i]
		}
	}
	if typ == nil {
		return fmt.Errorf("there is no type %q: %s", c.Type, strings.Join(names, ", "))
	}
	public, err := publicFields(typ, c.Set)
	if err != nil {
		return err
	}
	secret, err := c.secret(a, typ)
	if err != nil {
		return err
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	var made credentialView
	if _, err := api.Do(a.ctx, "POST", "/credentials", map[string]any{"name": c.Name, "type": c.Type, "public": public, "secret": secret}, &made); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	fmt.Fprintf(a.out, "%s created: id %s\n", made.Name, made.ID)
	return nil
}

// publicFields reads FIELD=VALUE by the type's schema. Secrets are refused here: what stands on a command line is in everybody's list of processes.
func publicFields(t *credentialType, list []string) (map[string]any, error) {
	out := map[string]any{}
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, errors.New("--set takes FIELD=VALUE")
		}
		if _, secret := t.Secret.Properties[name]; secret {
			return nil, fmt.Errorf("%s is secret: give it by standard input or --secret FILE. It has been on your command line: change it", name)
		}
		out[name] = value
		switch t.Public.Properties[name].Type {
		case "integer":
			n, err := strconv.Atoi(value)
			if err != nil {
				return nil, fmt.Errorf("%s must be a whole number", name)
			}
			out[name] = n
		case "boolean":
			v, err := strconv.ParseBool(value)
			if err != nil {
				return nil, fmt.Errorf("%s must be true or false", name)
			}
			out[name] = v
		}
	}
	return out, nil
}

// maxSecretFile is more than any secret has.
const maxSecretFile = 64 << 10

// secret reads the secret fields. Errors don't show what was read.
func (c *credentialCreate) secret(a *app, t *credentialType) (map[string]any, error) {
	if len(t.Secret.Order) == 0 {
		return nil, nil
	}
	in, from := a.in, "standard input"
	if c.Secret != "-" {
		f, err := os.Open(c.Secret)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, from = f, c.Secret
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the secret from %s: %w", from, err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(b) > maxSecretFile:
		return nil, fmt.Errorf("%s has more than %d KiB: is it the right file?", from, maxSecretFile>>10)
	case strings.HasPrefix(text, "{"):
		var fields map[string]any
		if json.Unmarshal(b, &fields) != nil {
			return nil, fmt.Errorf("%s begins like a JSON object and is none", from)
		}
		return fields, nil
	case text == "" && len(t.Secret.Required) > 0:
		return nil, fmt.Errorf("no secret in %s: a credential of type %s needs %s", from, t.Type, strings.Join(t.Secret.Required, ", "))
	case text == "":
		return nil, nil
	case len(t.Secret.Order) > 1:
		return nil, fmt.Errorf("%s needs several secret fields (%s): give a JSON object", t.Type, strings.Join(t.Secret.Order, ", "))
	case strings.Contains(text, "\n"):
		return nil, fmt.Errorf("%s has several lines: a secret is one line, or a JSON object of the fields", from)
	}
	return map[string]any{t.Secret.Order[0]: text}, nil
}

type credentialTest struct {
	Credential string `arg:"" help:"Name or id."`
}

func (c *credentialTest) Run(a *app) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	var trial struct {
		Outcome      string `json:"outcome"`
		Message      string `json:"message"`
		Milliseconds int64  `json:"milliseconds"`
	}
	if _, err := api.Do(a.ctx, "POST", "/credentials/"+url.PathEscape(c.Credential)+"/test", nil, &trial); err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(trial); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "%s: %s (%d ms)\n", trial.Outcome, trial.Message, trial.Milliseconds)
	}
	if trial.Outcome == "fails" {
		return errors.New("the credential doesn't work")
	}
	return nil
}

type credentialDelete struct {
	Credential string `arg:"" help:"Name or id."`
}

func (c *credentialDelete) Run(a *app) error {
	api, err := a.api()
	if err != nil {
		return err
	}
	if _, err := api.Do(a.ctx, "DELETE", "/credentials/"+url.PathEscape(c.Credential), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s deleted\n", c.Credential)
	return nil
}
