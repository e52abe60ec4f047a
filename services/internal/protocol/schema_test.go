package protocol_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

type messageSchema struct {
	Properties map[string]any `json:"properties"`
	Defs       map[string]struct {
		Properties map[string]any `json:"properties"`
	} `json:"$defs"`
}

func load(t *testing.T, name string) (*jsonschema.Schema, messageSchema) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "messages", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	var m messageSchema
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return s, m
}

func fields(typ reflect.Type) []string {
	var out []string
	for i := range typ.NumField() {
		if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func keys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// TestMessageSchemas: the documents name every field that the Go types have and no other, and take what the code writes.
func TestMessageSchemas(t *testing.T) {
	t.Parallel()
	taskSchema, task := load(t, "task")
	reportSchema, report := load(t, "report")
	for name, tc := range map[string][2][]string{
		"task":   {keys(task.Properties), fields(reflect.TypeFor[protocol.Task]())},
		"report": {keys(report.Properties), fields(reflect.TypeFor[protocol.Report]())},
		"entry":  {keys(report.Defs["entry"].Properties), fields(reflect.TypeFor[protocol.Entry]())},
		"event":  {keys(report.Defs["event"].Properties), slices.Sorted(slices.Values(append(fields(reflect.TypeFor[flow.Event]()), "r")))}, // r: where a large output is
		"log":    {keys(report.Defs["log"].Properties), fields(reflect.TypeFor[protocol.LogLine]())},
	} {
		if !slices.Equal(tc[0], tc[1]) {
			t.Errorf("%s: the schema has %v, the type has %v", name, tc[0], tc[1])
		}
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	events, err := protocol.EncodeEvents([]flow.Event{
		{Type: flow.EventSucceeded, Node: "a", Try: 1, Output: map[string]any{"n": 1}, At: at, Started: at},
		{Type: flow.EventFailed, Node: "b", Try: 1, Error: &flow.Failure{Code: "x", Message: "y", Retryable: true}, At: at},
		{Type: flow.EventWaiting, Node: "c", Wait: &flow.Wait{Kind: flow.WaitTimer, Due: at, Reason: "r"}, At: at},
		{Type: flow.EventMet, Node: "c", At: at, Port: "expired"},
		{Type: flow.EventSucceeded, Node: "d", Try: 1, Pure: true, At: at},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := protocol.ID{1, 2, 3}
	logs, err := json.Marshal([]protocol.LogLine{{At: at, Level: "info", Node: "a", Iteration: "3", Try: 1, Message: "hello", Fields: json.RawMessage(`{"n":1}`)}})
	if err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		schema *jsonschema.Schema
		v      any
	}{
		"task": {taskSchema, protocol.Task{V: 1, ID: id, Attempt: 2, Flow: id, Version: 1, Priority: "normal", CreatedAt: at, Input: json.RawMessage(`{"a":1}`), Steps: []json.RawMessage{events}, Suspect: true, Deadline: at, Project: id, Parent: id}},
		"report": {reportSchema, protocol.Report{V: 1, Shard: 0, Entries: []protocol.Entry{
			{Kind: protocol.EntryStep, Execution: id, Attempt: 1, Session: id, Run: 7, Seq: 2, Base: 1, Events: events, Started: at},
			{Kind: protocol.EntrySuspend, Execution: id, Attempt: 1, Seq: 1, Waits: []protocol.WaitEntry{{Node: "c", Kind: "timer", Reason: "r", Due: at}}},
			{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Failed, Error: &flow.Failure{Code: "x", Message: "y"}, Output: json.RawMessage(`null`)},
			{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Succeeded, OutputRef: &protocol.Value{Ref: strings.Repeat("0a", 32), Size: 300 << 10}, Logs: logs, Events: json.RawMessage(`[{"t":"ok","n":"a","at":"2030-01-02T03:04:05Z","r":{"r":"` + strings.Repeat("0a", 32) + `","s":300000}}]`)},
			protocol.RecoverEntry(id),
		}}},
	} {
		b, err := json.Marshal(tc.v)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.schema.Validate(doc); err != nil {
			t.Errorf("%s: %v\n%s", what, err, b)
		}
	}
}
