package definitions

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/store"
)

// The node types that hooks are made of.
const (
	typeWebhook = "trigger.webhook"
	typeRespond = "flow.respond"
)

// Longest waits for a flow's answer.
const (
	defaultHookWait = 30 * time.Second
	maxHookWait     = 60 * time.Second
)

// Hook is a trigger.webhook of a version, as its configuration says.
type Hook struct {
	Node    string
	Path    string
	Method  string
	Respond bool // the flow answers
	Wait    time.Duration
	Headers []string // the flow gets these, in lower case
	Token   []byte   // SHA-256 of what callers must send; nil: nothing
}

// secretHeaders never reach a flow: what they carry would be stored with the execution, and shown to all who may read it.
var secretHeaders = []string{"authorization", "cookie", "proxy-authorization", "x-hook-token"}

// hooksOf reads the hooks of a document whose nodes fit their schemas, and says what those can't.
func hooksOf(def *flow.Definition) ([]Hook, []flow.Problem) {
	var out []Hook
	var wrong []flow.Problem
	for i := range def.Nodes {
		n := &def.Nodes[i]
		if n.Type != typeWebhook {
			continue
		}
		at := "/nodes/" + strconv.Itoa(i)
		add := func(pointer, code, format string, args ...any) {
			wrong = append(wrong, flow.Problem{Pointer: at + pointer, Code: code, Message: fmt.Sprintf(format, args...)})
		}
		literal := true
		walk(n.Config, "/config", func(pointer, text string) {
			if strings.Contains(text, "{{") {
				add(pointer, "not-literal", "a webhook's configuration can't hold expressions: it is read before anything has been computed")
				literal = false
			}
		})
		if !literal {
			continue
		}
		h := readHook(n, add)
		if twin := slices.IndexFunc(out, func(o Hook) bool { return o.Path == h.Path && o.Method == h.Method }); twin >= 0 {
			add("/config/path", "duplicate-hook", "the node %s has %s /hooks/%s already: choose another path or method", out[twin].Node, h.Method, h.Path)
		}
		out = append(out, h)
	}
	return out, wrong
}

// readHook reads one. Values of a wrong type are the schema's to report.
func readHook(n *flow.Node, add func(pointer, code, format string, args ...any)) Hook {
	h := Hook{Node: n.ID, Method: "POST", Wait: defaultHookWait}
	h.Path, _ = n.Config["path"].(string)
	if slices.ContainsFunc(strings.Split(h.Path, "/"), func(s string) bool { return s == "." || s == ".." }) {
		add("/config/path", "path", `"." and ".." can't be parts of a path: clients and proxies take them out`)
	}
	if m, ok := n.Config["method"].(string); ok {
		h.Method = m
	}
	h.Respond = n.Config["respond"] == "flow"
	switch v := n.Config["wait"].(type) {
	case nil:
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			add("/config/wait", "duration", "%q is not a duration like 30s", v)
		}
		h.Wait = d
	case int:
		h.Wait = time.Duration(min(v, 1<<40)) * time.Millisecond
	}
	if h.Wait < 0 || h.Wait > maxHookWait {
		add("/config/wait", "range", "a wait is 0 to %s", maxHookWait)
	}
	names, _ := n.Config["headers"].([]any)
	for k, v := range names {
		name, _ := v.(string)
		name = strings.ToLower(name)
		if slices.Contains(secretHeaders, name) {
			add("/config/headers/"+strconv.Itoa(k), "secret-header", "%s is never given to a flow: it would be stored with the execution. To know the caller, use tokenSha256", v)
		}
		h.Headers = append(h.Headers, name)
	}
	if sum, ok := n.Config["tokenSha256"].(string); ok {
		h.Token, _ = hex.DecodeString(sum) // the schema knows its form
	}
	return h
}

// walk visits the texts of a configuration.
func walk(v any, pointer string, text func(pointer, s string)) {
	switch t := v.(type) {
	case string:
		text(pointer, t)
	case []any:
		for i, item := range t {
			walk(item, pointer+"/"+strconv.Itoa(i), text)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(t)) {
			walk(t[k], pointer+"/"+escape.Replace(k), text)
		}
	}
}

// respondersOf lists the nodes that answer for the flow.
func respondersOf(def *flow.Definition) []string {
	var out []string
	for i := range def.Nodes {
		if def.Nodes[i].Type == typeRespond {
			out = append(out, def.Nodes[i].ID)
		}
	}
	return out
}

// Hook finds a trigger of the version.
func (v *Version) Hook(node string) (Hook, bool) {
	i := slices.IndexFunc(v.Hooks, func(h Hook) bool { return h.Node == node })
	if i < 0 {
		return Hook{}, false
	}
	return v.Hooks[i], true
}

// StoredHooks are the hooks of a document as rows.
func StoredHooks(hooks []Hook) []store.Hook {
	out := make([]store.Hook, len(hooks))
	for i, h := range hooks {
		out[i] = store.Hook{Node: h.Node, Path: h.Path, Method: h.Method, Flows: h.Respond}
	}
	return out
}

type hooksAt struct {
	hooks []store.Hook
	at    time.Time
}

// HooksAt lists the hooks at a path, as they were Believed ago or later; none is no error.
func (d *Definitions) HooksAt(ctx context.Context, path string) ([]store.Hook, error) {
	now := d.now()
	d.mu.RLock()
	h, ok := d.hooks[path]
	d.mu.RUnlock()
	if ok && now.Sub(h.at) < Believed {
		return h.hooks, nil
	}
	for {
		v, err, _ := d.flight.Do("hook "+path, func() (any, error) {
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			found := hooksAt{at: d.now()}
			var err error
			if found.hooks, err = d.db.HooksAt(bounded, path); err != nil {
				return nil, err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.hooks) >= maxHeads {
				clear(d.hooks)
			}
			d.hooks[path] = found
			return found, nil
		})
		if err != nil {
			return nil, err
		}
		if h = v.(hooksAt); now.Sub(h.at) < Believed { // else: somebody's slow question from before our time
			return h.hooks, nil
		}
	}
}
