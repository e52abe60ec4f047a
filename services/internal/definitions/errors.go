package definitions

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const typeError = "trigger.error"

// ErrorTrigger is the trigger.error of a version.
type ErrorTrigger struct {
	Node   string
	Flows  []string // names or ids; none: all others
	States []protocol.State
}

// errorTriggerOf reads the trigger.error of a document whose nodes fit their schemas, and says what that can't; nil: it has none.
func errorTriggerOf(def *flow.Definition) (*ErrorTrigger, []flow.Problem) {
	var out *ErrorTrigger
	var wrong []flow.Problem
	for i := range def.Nodes {
		n := &def.Nodes[i]
		if n.Type != typeError {
			continue
		}
		at := "/nodes/" + strconv.Itoa(i)
		add := func(pointer, code, format string, args ...any) {
			wrong = append(wrong, flow.Problem{Pointer: at + pointer, Code: code, Message: fmt.Sprintf(format, args...)})
		}
		walk(n.Config, "/config", func(pointer, text string) {
			if strings.Contains(text, "{{") {
				add(pointer, "not-literal", "the configuration of a trigger.error can't hold expressions: it is read before anything has been computed")
			}
		})
		if out != nil {
			add("", "too-many", "a flow has one trigger.error: name all flows in it, and tell their failures apart by logic.switch over input.execution.flow")
			continue
		}
		out = &ErrorTrigger{Node: n.ID, Flows: textsIn(n.Config["flows"])}
		for _, s := range textsIn(n.Config["on"]) {
			out.States = append(out.States, protocol.State(s))
		}
		if len(out.States) == 0 {
			out.States = []protocol.State{protocol.Failed, protocol.TimedOut}
		}
		if own := slices.Index(out.Flows, def.Name); own >= 0 {
			add("/config/flows/"+strconv.Itoa(own), "own-flow", "a flow is never started by its own failures: name others, or none for all others")
		}
	}
	return out, wrong
}

// textsIn are the texts of a list. What is no text is the schema's to report.
func textsIn(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// stored is the row that belongs to it once the version is published.
func (e *ErrorTrigger) stored() []store.Hook {
	if e == nil {
		return nil
	}
	return []store.Hook{{Node: e.Node, Errors: &store.ErrorSpec{Flows: e.Flows, States: e.States}}}
}
