package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestListsFollowPages asks for more than a page and for less than there is.
func TestListsFollowPages(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	const total = 1200
	var asked []string
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/executions": func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			asked = append(asked, q.Get("limit")+" from "+q.Get("cursor")+" "+q.Get("status")+" "+strings.Join(q["label"], ";"))
			from, n := 0, 0
			fmt.Sscan(q.Get("cursor"), &from)
			fmt.Sscan(q.Get("limit"), &n)
			items := []any{}
			for i := from; i < min(from+n, total); i++ {
				items = append(items, map[string]any{"id": fmt.Sprintf("e%d", i), "status": "failed", "extra": true, "error": map[string]any{"code": "c", "message": "bad\x1b[31m\nthing", "node": "n"}})
			}
			page := map[string]any{"items": items}
			if from+n < total {
				page["nextCursor"] = fmt.Sprint(from + n)
			}
			answer(w, page)
		},
	})
	for _, tc := range []struct {
		limit, lines int
		asked        string
		more         bool
	}{
		{5000, 1200, "500 from  failed,queued a=b,c;d=e|500 from 500 failed,queued a=b,c;d=e|500 from 1000 failed,queued a=b,c;d=e", false},
		{700, 700, "500 from  failed,queued a=b,c;d=e|200 from 500 failed,queued a=b,c;d=e", true},
		{1200, 1200, "500 from  failed,queued a=b,c;d=e|500 from 500 failed,queued a=b,c;d=e|200 from 1000 failed,queued a=b,c;d=e", false},
	} {
		asked = nil
		code, out, errs := flowctl(t, "", "--server", url, "--token", "secret", "execution", "list", "--limit", fmt.Sprint(tc.limit), "--status", "failed,queued", "--label", "a=b,c", "--label", "d=e")
		if code != 0 || strings.Count(out, "\n") != tc.lines+1 || strings.Join(asked, "|") != tc.asked || strings.Contains(errs, "There are more") != tc.more {
			t.Errorf("--limit %d: %d, %d lines, %v, %s", tc.limit, code, strings.Count(out, "\n"), asked, errs)
		}
		if !strings.Contains(out, `bad [31m thing (c, node "n")`) || strings.ContainsRune(out, '\x1b') {
			t.Errorf("an error isn't shown, or rules the terminal:\n%.300q", out)
		}
	}
	if code, out, _ := flowctl(t, "", "--server", url, "--token", "secret", "-o", "json", "execution", "list", "--limit", "1"); code != 0 || !strings.Contains(out, `"extra": true`) {
		t.Errorf("%d %s: a program gets all that the server says", code, out)
	}
	for _, args := range [][]string{{"--limit", "0"}, {"--status", "nosuch"}} {
		if code, _, errs := flowctl(t, "", append([]string{"--server", url, "--token", "secret", "execution", "list"}, args...)...); code == 0 || errs == "" {
			t.Errorf("%v was taken", args)
		}
	}
}

func TestCatalogTakesATypeOrTheSchema(t *testing.T) {
	if code, _, errs := flowctl(t, "", "--server", "http://localhost:1", "--token", "x", "catalog", "http.request", "--flow-schema"); code != 1 || !strings.Contains(errs, "not both") {
		t.Errorf("%d %s", code, errs)
	}
}
