// Package guarantees checks that docs/guarantees.md says of every known failure which test provokes it, or why none does, and that these tests exist.
package guarantees

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// known are the failures that the table must have.
func known() []string {
	var ids []string
	for _, group := range []struct {
		name string
		n    int
	}{{"MQ-", 21}, {"PG-", 13}, {"RD-", 4}, {"GO-", 5}, {"H", 12}} {
		for i := range group.n {
			ids = append(ids, group.name+strconv.Itoa(i+1))
		}
	}
	return append(ids, "NX-3")
}

type line struct {
	tests  []string // TestX or TestX/part
	reason string
}

var (
	idCell   = regexp.MustCompile(`^(MQ|PG|RD|NX|GO|CO|NO|CR|TF)-\d+$|^H\d+$`)
	testName = regexp.MustCompile("`(Test[A-Za-z0-9_]+)(/[A-Za-z0-9_]+)?`")
)

// table reads the lines of a document's tables that begin with an id.
func table(doc string) (map[string]line, error) {
	out := map[string]line{}
	for _, l := range strings.Split(doc, "\n") {
		cells := strings.Split(strings.Trim(l, "| "), "|")
		id := strings.TrimSpace(cells[0])
		if !strings.HasPrefix(l, "|") || !idCell.MatchString(id) {
			continue
		}
		if len(cells) != 4 {
			return nil, fmt.Errorf("%s has %d columns, not 4: %s", id, len(cells), l)
		}
		if _, twice := out[id]; twice {
			return nil, fmt.Errorf("%s is there twice", id)
		}
		entry := line{reason: strings.TrimSpace(cells[3])}
		for _, m := range testName.FindAllStringSubmatch(cells[2]+cells[3], -1) {
			entry.tests = append(entry.tests, m[1]+m[2])
		}
		out[id] = entry
	}
	return out, nil
}

// problems of a table, given the text of all test files.
func problems(lines map[string]line, ids []string, tests string) []string {
	var out []string
	for _, id := range ids {
		l, ok := lines[id]
		switch {
		case !ok:
			out = append(out, id+" has no line")
		case len(l.tests) == 0 && len(l.reason) < 30:
			out = append(out, id+" has neither a test nor a reason")
		}
		for _, name := range l.tests {
			top, part, _ := strings.Cut(name, "/")
			if !strings.Contains(tests, "func "+top+"(") {
				out = append(out, fmt.Sprintf("%s names %s, which doesn't exist", id, top))
			}
			if part != "" && !strings.Contains(tests, `"`+part+`"`) {
				out = append(out, fmt.Sprintf("%s names %s, of which there is no part %s", id, top, part))
			}
		}
	}
	return out
}

func read(t *testing.T, keep func(path string) bool) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"services", "scripts"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !keep(path) {
				return err
			}
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.go") }

func TestEveryFailureHasItsTestOrItsReason(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join(root, "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := table(string(doc))
	if err != nil {
		t.Fatal(err)
	}
	ids := known()
	for id := range lines {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, p := range problems(lines, ids, read(t, isTest)) {
		t.Errorf("docs/guarantees.md: %s", p)
	}
}

func TestProblemsAreFound(t *testing.T) {
	t.Parallel()
	lines, err := table("| id | what | test | why |\n|---|---|---|---|\n| MQ-1 | x | `TestA` | shown |\n| MQ-2 | x | `TestGone`, `TestA/part` | shown |\n| MQ-3 | x |  | no |\n")
	if err != nil {
		t.Fatal(err)
	}
	got := problems(lines, []string{"MQ-1", "MQ-2", "MQ-3", "MQ-4"}, "func TestA(t *testing.T) {")
	want := []string{"MQ-2 names TestGone, which doesn't exist", "MQ-2 names TestA, of which there is no part part", "MQ-3 has neither a test nor a reason", "MQ-4 has no line"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"| MQ-1 | x | y |", "| MQ-1 | a | b | c |\n| MQ-1 | a | b | c |"} {
		if _, err := table(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestMQ6_NothingIsNacked: what a nack or a reject does to order and to counts differs between the broker's versions. Nothing of ours does either.
func TestMQ6_NothingIsNacked(t *testing.T) {
	t.Parallel()
	code := read(t, func(path string) bool { return strings.HasSuffix(path, ".go") && !isTest(path) })
	if call := regexp.MustCompile(`\.(Nack|Reject)\(.*`).FindString(code); call != "" {
		t.Errorf("a message is handed back by %s: close the channel, or park it", call)
	}
}

// TestPG10_SlotsCantPinWALForEver: a replication slot that nobody reads may not fill the disk.
func TestPG10_SlotsCantPinWALForEver(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile(filepath.Join(root, "configs", "postgres", "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^max_slot_wal_keep_size\s*=\s*\d+(MB|GB)`).Match(conf) {
		t.Error("configs/postgres/postgresql.conf sets no max_slot_wal_keep_size: an unused slot pins WAL until the disk is full")
	}
}
