package nodes

import (
	"errors"
	"os"
	"testing"
	"time"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/nodes/script"
)

var scripts = script.NewHost("", 2)

func TestMain(m *testing.M) {
	if status, is := script.Child(); is {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// decode reads a value as the platform does.
func decode(t testing.TB, s string) any {
	t.Helper()
	v, err := flow.DecodeValue([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := flow.EncodeValue(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// compiled makes a flow of a trigger and one node with the configuration, written as JSON.
func compiled(t testing.TB, typ, config string) (*flow.Program, []flow.Problem) {
	t.Helper()
	def := &flow.Definition{Name: "test", Nodes: []flow.Node{{ID: "start", Type: "trigger.manual"}, {ID: "n", Type: typ, Config: decode(t, config).(map[string]any)}}, Edges: []flow.Edge{{From: "start", To: "n"}}}
	return flow.Compile(def, flow.FlowView{Name: "test", Version: 1}, catalogue(t), expr.New())
}

// prepared gives the executor and the call of a node in a flow, configuration and input written as JSON.
func prepared(t testing.TB, typ, config, input string) (node.Executor, node.Call) {
	t.Helper()
	p, problems := compiled(t, typ, config)
	if len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	st := p.Start(flow.Record{Input: decode(t, input), Execution: flow.ExecutionView{ID: "e", CreatedAt: time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC), Trigger: "manual"}})
	cmds := st.Next()
	if len(cmds) != 1 {
		t.Fatalf("%d commands; %v", len(cmds), st.Failure())
	}
	x, _ := catalogue(t).Executor(typ, 0)
	return x, node.Call{Config: cmds[0].Config, Now: cmds[0].Now, Seed: cmds[0].Seed, Scope: cmds[0].Scope, Inputs: cmds[0].Inputs, Limits: node.Limits{MaxValueBytes: 256 << 10}}
}

// compute runs a node in a flow: its output as JSON, or "port: …", or "code: message" of its error.
func compute(t testing.TB, typ, config, input string) string {
	t.Helper()
	x, c := prepared(t, typ, config, input)
	r, err := x.Execute(t.Context(), c)
	var ne *node.Error
	switch {
	case errors.As(err, &ne):
		return ne.Code + ": " + ne.Message
	case err != nil:
		return "error: " + err.Error()
	case r.Port != "":
		return "port: " + r.Port
	}
	return encode(t, r.Output)
}
