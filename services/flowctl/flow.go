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

	"flowplatform/services/flowctl/internal/client"
)

type flowCommands struct {
	Apply    flowApply    `cmd:"" help:"Create a flow, or save a new version of the one with its name."`
	List     flowList     `cmd:"" help:"List flows."`
	Get      flowGet      `cmd:"" help:"Show a flow with its document."`
	Versions flowVersions `cmd:"" help:"List a flow's versions."`
	Publish  flowPublish  `cmd:"" help:"Make a version the one that triggers and starts use."`
	Pause    flowPause    `cmd:"" help:"Pause a flow: what is accepted waits."`
	Resume   flowResume   `cmd:"" help:"Let a paused flow go on."`
	Waits    flowWaits    `cmd:"" help:"Add up what its executions have waited for."`
	Delete   flowDelete   `cmd:"" help:"Delete a flow."`
	Validate flowValidate `cmd:"" help:"Check a flow document; every problem is listed."`
	Test     flowTest     `cmd:"" help:"Run the tests of flows (*.test.yaml) on a platform of their own, or on --server."`
}

// flowView is what flowctl reads of a flow.
type flowView struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Published int             `json:"publishedVersion"`
	Latest    int             `json:"latestVersion"`
	UpdatedAt time.Time       `json:"updatedAt"`
	Document  json.RawMessage `json:"document,omitempty"`
}

func readFile(a *app, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(path)
}

type flowApply struct {
	File  string `short:"f" required:"" help:"The flow document; - is standard input." placeholder:"FILE"`
	Draft bool   `help:"Only save it: triggers and starts stay with the version that is published."`
}

func (f *flowApply) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	saved, verb, err := f.apply(a, c)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(saved)
	}
	fmt.Fprintf(a.out, "%s %s: version %d, id %s\n", saved.Name, verb, saved.Latest, saved.ID)
	return nil
}

// apply creates the flow or saves a version of it, and tells which.
func (f *flowApply) apply(a *app, c *client.Client) (saved flowView, verb string, err error) {
	doc, err := readFile(a, f.File)
	if err != nil {
		return saved, "", err
	}
	var head struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return saved, "", fmt.Errorf("%s is not JSON: %w", f.File, err)
	}
	old, err := findFlow(a, c, head.Name)
	if err != nil && !errors.Is(err, errNoFlow) {
		return saved, "", err
	}
	verb, query := "created", ""
	if f.Draft {
		verb, query = "created as a draft", "?draft=true"
	}
	if errors.Is(err, errNoFlow) {
		_, err = c.Do(a.ctx, "POST", "/flows"+query, doc, &saved)
	} else {
		verb = strings.Replace(verb, "created", "saved", 1)
		_, err = c.Do(a.ctx, "PUT", "/flows/"+old.ID+query, doc, &saved)
	}
	return saved, verb, err
}

var errNoFlow = errors.New("no such flow")

// findFlow finds a flow by id or by its exact name.
func findFlow(a *app, c *client.Client, nameOrID string) (flowView, error) {
	cursor := ""
	for {
		var page struct {
			Items      []flowView `json:"items"`
			NextCursor string     `json:"nextCursor"`
		}
		q := url.Values{"limit": {"200"}, "q": {nameOrID}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		if isID(nameOrID) {
			var one flowView
			if _, err := c.Do(a.ctx, "GET", "/flows/"+nameOrID, nil, &one); err != nil {
				return one, err
			}
			return one, nil
		}
		if _, err := c.Do(a.ctx, "GET", "/flows?"+q.Encode(), nil, &page); err != nil {
			return flowView{}, err
		}
		for _, f := range page.Items {
			if f.Name == nameOrID {
				return f, nil
			}
		}
		if cursor = page.NextCursor; cursor == "" {
			return flowView{}, fmt.Errorf("%w: %q (`flowctl flow list` shows all)", errNoFlow, nameOrID)
		}
	}
}

func isID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
}

type flowList struct {
	Limit int    `help:"How many at the most." default:"50"`
	Query string `short:"q" help:"Part of the name."`
}

func (f *flowList) Run(a *app) error {
	q := url.Values{}
	if f.Query != "" {
		q.Set("q", f.Query)
	}
	return list(a, "/flows", q, f.Limit, func(items []flowView) error {
		rows := make([][]string, len(items))
		for i, v := range items {
			rows[i] = []string{v.ID, v.Name, strconv.Itoa(v.Published), strconv.Itoa(v.Latest), ago(v.UpdatedAt)}
		}
		return a.table([]string{"ID", "NAME", "PUBLISHED", "LATEST", "UPDATED"}, rows)
	})
}

type flowGet struct {
	Flow    string `arg:"" help:"Name or id."`
	Version int    `help:"This version rather than the newest." placeholder:"N"`
}

func (f *flowGet) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	v, err := findFlow(a, c, f.Flow)
	if err != nil {
		return err
	}
	path := "/flows/" + v.ID
	if f.Version != 0 {
		path += "/versions/" + strconv.Itoa(f.Version)
	}
	var whole json.RawMessage
	if _, err := c.Do(a.ctx, "GET", path, nil, &whole); err != nil {
		return err
	}
	return a.printJSON(whole)
}

type flowVersions struct {
	Flow  string `arg:"" help:"Name or id."`
	Limit int    `help:"How many at the most." default:"50"`
}

func (f *flowVersions) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	v, err := findFlow(a, c, f.Flow)
	if err != nil {
		return err
	}
	type version struct {
		Version   int
		Published bool
		CreatedBy string
		CreatedAt time.Time
	}
	return list(a, "/flows/"+v.ID+"/versions", nil, f.Limit, func(items []version) error {
		rows := make([][]string, len(items))
		for i, n := range items {
			published := ""
			if n.Published {
				published = "yes"
			}
			rows[i] = []string{strconv.Itoa(n.Version), published, ago(n.CreatedAt), n.CreatedBy}
		}
		return a.table([]string{"VERSION", "PUBLISHED", "SAVED", "BY"}, rows)
	})
}

type flowPublish struct {
	Flow    string `arg:"" help:"Name or id."`
	Version int    `arg:"" help:"Number of the version; flow versions lists them."`
}

func (f *flowPublish) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	v, err := findFlow(a, c, f.Flow)
	if err != nil {
		return err
	}
	if _, err := c.Do(a.ctx, "POST", "/flows/"+v.ID+"/versions/"+strconv.Itoa(f.Version)+"/publish", nil, &v); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.out, "%s: version %d is published\n", v.Name, v.Published)
	return nil
}

type flowDelete struct {
	Flow string `arg:"" help:"Name or id."`
}

func (f *flowDelete) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	v, err := findFlow(a, c, f.Flow)
	if err != nil {
		return err
	}
	if _, err := c.Do(a.ctx, "DELETE", "/flows/"+v.ID, nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s deleted\n", v.Name)
	return nil
}

type flowValidate struct {
	File string `arg:"" help:"The flow document; - is standard input."`
}

func (f *flowValidate) Run(a *app) error {
	doc, err := readFile(a, f.File)
	if err != nil {
		return err
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	var res struct {
		Valid    bool `json:"valid"`
		Problems []struct {
			Pointer string `json:"pointer"`
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"problems"`
	}
	if _, err := c.Do(a.ctx, "POST", "/flows/validate", doc, &res); err != nil {
		return err
	}
	switch {
	case a.json:
		if err := a.printJSON(res); err != nil {
			return err
		}
	case res.Valid:
		fmt.Fprintln(a.out, "The flow is valid.")
	default:
		var rows [][]string
		for _, p := range res.Problems {
			rows = append(rows, []string{p.Pointer, p.Code, p.Message})
		}
		if err := a.table([]string{"AT", "PROBLEM", "WHAT TO DO"}, rows); err != nil {
			return err
		}
	}
	if !res.Valid {
		return fmt.Errorf("the flow has %d problems", len(res.Problems))
	}
	return nil
}
