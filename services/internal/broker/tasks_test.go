package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

func TestTaskMessages(t *testing.T) {
	t.Parallel()
	list := func(n int, change func(i int, t *protocol.Task)) []protocol.Task {
		out := make([]protocol.Task, n)
		for i := range out {
			out[i] = protocol.Task{V: 1, ID: protocol.ID{byte(i), 1}, Attempt: i + 1}
			if change != nil {
				change(i, &out[i])
			}
		}
		return out
	}
	large := json.RawMessage(`"` + strings.Repeat("x", maxTaskBytes/2) + `"`)
	for name, tc := range map[string]struct {
		tasks []protocol.Task
		want  string // tasks by message
	}{
		"none":                         {nil, "[]"},
		"one":                          {list(1, nil), "[[0]]"},
		"few go to several workers":    {list(4, nil), "[[0] [1] [2] [3]]"},
		"eight":                        {list(8, nil), "[[0 1] [2 3] [4 5] [6 7]]"},
		"a message is of one queue":    {list(8, func(i int, t *protocol.Task) { t.Priority = [...]string{"high", "low"}[i%2] }), "[[0 2] [1 3] [4 6] [5 7]]"},
		"the default pool has no name": {list(8, func(i int, t *protocol.Task) { t.Pool = [...]string{"", DefaultPool}[i%2] }), "[[0 1] [2 3] [4 5] [6 7]]"},
		"large ones alone":             {list(5, func(_ int, t *protocol.Task) { t.Input = large }), "[[0] [1] [2] [3] [4]]"},
		"what can't be written":        {list(2, func(i int, t *protocol.Task) { t.Input = json.RawMessage([...]string{"{", "1"}[i]) }), "[[1]]"},
	} {
		var got [][]int
		unfit := 0
		for _, m := range TaskMessages(tc.tasks, func(int, error) { unfit++ }) {
			got = append(got, m.Carries)
			i := 0
			for body := range Tasks(m.Body) {
				var back protocol.Task
				if err := json.Unmarshal(body, &back); err != nil || back.ID != tc.tasks[m.Carries[i]].ID {
					t.Errorf("%s: line %d is %s, %v", name, i, body, err)
				}
				i++
			}
			if i != len(m.Carries) {
				t.Errorf("%s: %d lines for %d tasks", name, i, len(m.Carries))
			}
		}
		if s := fmt.Sprint(got); s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
		carried := 0
		for _, c := range got {
			carried += len(c)
		}
		if carried+unfit != len(tc.tasks) {
			t.Errorf("%s: %d carried and %d unfit of %d", name, carried, unfit, len(tc.tasks))
		}
	}
	if got := TaskMessages(list(1000, nil), nil); len(got) != 63 {
		t.Errorf("1000 tasks in %d messages, want 63", len(got))
	}
}
