package flowtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxPin is the most that a pinned output may have: data.transform's query holds it.
const maxPin = 60 << 10

// Ports with a meaning, as flow documents name them.
const (
	portMain    = "main"
	portError   = "error"
	portDefault = "default"
	portFinally = "finally" // of logic.try: always, beside the other
)

type object = map[string]any

// pin gives the document with pure nodes in place of those that are pinned, under another name.
//
// Their id, ports, place and onError stay. Edges by ports that a pinned step doesn't leave by must stay too, or what they lead to would run, or be invalid: they become edges of
// its port error, by which nothing leaves where nothing fails. Nodes inside a pinned container go with it.
func pin(document []byte, name string, pins map[string]Pin) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.UseNumber()
	var doc object
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("the flow's document: %w", err)
	}
	doc["name"] = name
	d := draft{nodes: objects(doc["nodes"]), edges: objects(doc["edges"])}
	undo := d.undoings(pins)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(pins)) {
		if err := d.pin(id, pins[id]); err != nil {
			errs = append(errs, fmt.Errorf("pins.%s: %w", id, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	d.nodes = slices.DeleteFunc(d.nodes, func(n object) bool { return undo[text(n, "id")] })
	doc["nodes"], doc["edges"] = d.nodes, d.edges
	return json.Marshal(doc)
}

func objects(v any) []object {
	list, _ := v.([]any)
	out := make([]object, 0, len(list))
	for _, one := range list {
		if o, ok := one.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

func text(o object, key string) string {
	s, _ := o[key].(string)
	return s
}

// draft is a document on its way.
type draft struct{ nodes, edges []object }

// undoings are the nodes that undo a pinned step. It does nothing, so nothing is to be undone, and they go.
func (d *draft) undoings(pins map[string]Pin) map[string]bool {
	out := map[string]bool{}
	for _, n := range d.nodes {
		if _, pinned := pins[text(n, "id")]; pinned && text(n, "compensate") != "" {
			out[text(n, "compensate")] = true
		}
	}
	return out
}

func (d *draft) pin(id string, p Pin) error {
	at := slices.IndexFunc(d.nodes, func(n object) bool { return text(n, "id") == id })
	if at < 0 {
		return errors.New("the flow has no node of this id")
	}
	old := d.nodes[at]
	if strings.HasPrefix(text(old, "type"), "trigger.") {
		return errors.New("a trigger's output is the input: say it there")
	}
	d.empty(id)
	at = slices.IndexFunc(d.nodes, func(n object) bool { return text(n, "id") == id }) // emptying may have moved it
	stand := object{"id": id}
	for _, key := range []string{"name", "parent", "position", "notes", "onError"} {
		if v, ok := old[key]; ok {
			stand[key] = v
		}
	}
	taken, as := portMain, "" // the port that it leaves by, and what that is called now
	var err error
	switch {
	case p.Error != nil && text(old, "type") == "logic.try":
		err = errors.New("logic.try doesn't fail: pin the step in it that does")
	case p.Error != nil:
		fails(stand, p.Error)
		taken = ""
	case p.Port == portError:
		err = errors.New("a step leaves by error when it fails: pin an error")
	case p.Port != "" && p.Port != portMain && p.Output == nil:
		leavesBy(stand, p.Port)
		taken, as = p.Port, p.Port
	default:
		taken, as = cmp.Or(p.Port, portMain), portMain
		err = gives(stand, p.Output)
	}
	if err != nil {
		return err
	}
	d.nodes[at] = stand
	return d.close(old, stand, taken, as)
}

// empty takes out all that is inside of a container.
func (d *draft) empty(id string) {
	inside := map[string]bool{}
	for grown := true; grown; {
		grown = false
		for _, n := range d.nodes {
			if parent := text(n, "parent"); !inside[text(n, "id")] && (parent == id || inside[parent]) && parent != "" {
				inside[text(n, "id")], grown = true, true
			}
		}
	}
	d.nodes = slices.DeleteFunc(d.nodes, func(n object) bool { return inside[text(n, "id")] })
	d.edges = slices.DeleteFunc(d.edges, func(e object) bool { return inside[text(e, "from")] || inside[text(e, "to")] })
}

// gives makes a node with an output: JSON is jq.
func gives(stand object, v Value) error {
	if v == nil {
		v = Value("null")
	}
	if len(v) > maxPin {
		return fmt.Errorf("the output has %d bytes, the most is %d", len(v), maxPin)
	}
	stand["type"], stand["config"] = "data.transform", object{"query": string(v), "input": nil}
	return nil
}

// leavesBy makes a node that leaves by a port, with null as its output.
func leavesBy(stand object, port string) {
	branch := object{"port": port, "condition": true}
	if port == portDefault { // no case may be called so: it is where none holds
		branch = object{"port": "never", "condition": false}
	}
	stand["type"], stand["config"] = "logic.switch", object{"cases": []any{branch}}
}

// fails makes a node that fails. Braces are no expression here.
func fails(stand object, e *Error) {
	message := e.Message
	if message == "" {
		message = "pinned"
	}
	stand["type"], stand["config"] = "flow.fail", object{"code": e.Code, "message": strings.ReplaceAll(message, "{{", `{{ "{{" }}`)}
}

// close leads the edges by the port that is taken to what it is called now, and those that are not to where nothing leaves. taken is "" when it fails.
func (d *draft) close(old, stand object, taken, as string) error {
	id := text(stand, "id")
	var kept []object
	seen := map[string]bool{}
	for _, e := range d.edges {
		if text(e, "from") == id {
			port := text(e, "port")
			if port == "" {
				port = portMain
			}
			switch {
			case port == taken, port == portFinally && text(old, "type") == "logic.try":
				port = as
			case port == portError && text(old, "type") != "logic.try":
			case taken != "": // the port error exists where it is routed, and nothing fails
				stand["onError"] = "route"
				port = portError
			case text(stand, "onError") == "continue" && port != portMain:
				return errors.New("it fails and goes on (onError: continue), and has edges by other ports than main: that can't be pinned")
			default: // flow.fail has no other; nothing leaves by it, unless it goes on
				port = portMain
			}
			e = maps.Clone(e)
			delete(e, "port")
			if port != portMain {
				e["port"] = port
			}
		}
		key := text(e, "from") + "\n" + text(e, "port") + "\n" + text(e, "to")
		if !seen[key] {
			kept = append(kept, e)
		}
		seen[key] = true
	}
	d.edges = kept
	return nil
}
