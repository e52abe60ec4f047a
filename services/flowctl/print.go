package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Nothing is printed in colours, so that NO_COLOR is honoured whatever it says.

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		for i, cell := range r {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, printable(cell))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// fields shows one thing, a line for each field that it has.
func (a *app) fields(fields [][2]string) error {
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	for _, f := range fields {
		if f[1] != "" && f[1] != "-" {
			fmt.Fprintf(w, "%s\t%s\n", f[0], printable(f[1]))
		}
	}
	return w.Flush()
}

// printable keeps a text in its place: what comes from flows and their servers may hold line breaks, and sequences that a terminal obeys.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func compact(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return string(raw)
	}
	return b.String()
}

// pageSize is what one request for a list asks for; the API gives at most 500.
const pageSize = 500

// list asks for the items of a list, page by page, until there are limit or no more, and shows them: as they came for programs, by table for people.
func list[T any](a *app, path string, q url.Values, limit int, table func([]T) error) error {
	if limit < 1 {
		return fmt.Errorf("--limit is %d: it must be 1 or more", limit)
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	query := url.Values{}
	for k, v := range q {
		query[k] = v
	}
	all := []json.RawMessage{}
	for {
		query.Set("limit", fmt.Sprint(min(pageSize, limit-len(all))))
		var page struct {
			Items      []json.RawMessage `json:"items"`
			NextCursor string            `json:"nextCursor"`
		}
		if _, err := c.Do(a.ctx, "GET", path+"?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		all = append(all, page.Items...)
		if page.NextCursor == "" {
			break
		}
		if len(all) >= limit {
			fmt.Fprintf(a.errs, "There are more: --limit %d shows the next.\n", 2*limit)
			break
		}
		query.Set("cursor", page.NextCursor)
	}
	if a.json {
		return a.printJSON(all)
	}
	items := make([]T, len(all))
	for i, raw := range all {
		if err := json.Unmarshal(raw, &items[i]); err != nil {
			return fmt.Errorf("the answer can't be read: %w", err)
		}
	}
	return table(items)
}

// ago shows a time as people say it.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return t.Format("2006-01-02")
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func between(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "-"
	}
	return to.Sub(from).Round(time.Millisecond).String()
}
