package flow

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Limits of a flow document.
const (
	MaxDocumentBytes = 1 << 20
	MaxNodes         = 2000
	MaxEdges         = 10000
	maxLabels        = 64
	maxText          = 10000 // description, notes
	maxName          = 200
)

// Parse reads a flow document. It returns every problem of its form (unknown fields, wrong types, keys that come twice, limits); what the
// parts mean together is Compile's to judge. The Definition holds what could be read and is never nil.
func Parse(data []byte) (*Definition, []Problem) {
	def := &Definition{}
	if len(data) > MaxDocumentBytes {
		return def, []Problem{{Code: "too-large", Message: fmt.Sprintf("the document has %d bytes, the most is %d", len(data), MaxDocumentBytes)}}
	}
	d := decoder{src: string(data), strict: &strictness{raw: map[string]string{}}}
	v, err := d.document()
	if err != nil {
		return def, []Problem{{Code: "json", Message: err.Error()}}
	}
	r := &reader{problems: d.strict.duplicates}
	r.definition(def, v)
	if raw, ok := d.strict.raw["inputSchema"]; ok && raw != "null" {
		def.InputSchema = json.RawMessage(raw)
	}
	return def, r.problems
}

// Load is Parse and Compile with the problems of both, as far as what Parse found leaves Compile something to judge.
func Load(data []byte, view FlowView, types Types, lang Language) (*Definition, *Program, []Problem) {
	def, problems := Parse(data)
	for _, p := range problems {
		unreadable := strings.HasSuffix(p.Pointer, "/id") || strings.HasSuffix(p.Pointer, "/type") || strings.HasSuffix(p.Pointer, "/from") || strings.HasSuffix(p.Pointer, "/to")
		if unreadable || strings.Count(p.Pointer, "/") <= 2 && p.Code != "unknown-field" && p.Code != "duplicate-key" {
			return def, nil, problems
		}
	}
	program, more := Compile(def, view, types, lang)
	if len(problems) == 0 {
		return def, program, more
	}
	for _, p := range more {
		known := func(q Problem) bool { return q.Pointer == p.Pointer || strings.HasPrefix(q.Pointer, p.Pointer+"/") }
		if !slices.ContainsFunc(problems, known) {
			problems = append(problems, p)
		}
	}
	return def, nil, problems
}

// reader turns a decoded value into a Definition and notes what is wrong.
type reader struct{ problems []Problem }

func (r *reader) add(ptr, code, format string, args ...any) {
	r.problems = append(r.problems, Problem{Pointer: ptr, Code: code, Message: fmt.Sprintf(format, args...)})
}

// field reads one field of an object.
type field struct {
	name string
	read func(v any, ptr string)
}

// object reads an object's fields, in the order of the table; what the table doesn't know is a problem. A null counts as absent.
func (r *reader) object(v any, ptr, what string, fields []field) bool {
	m, ok := v.(map[string]any)
	if !ok {
		r.add(ptr, "type", "%s is an object, not %s", what, kindOf(v))
		return false
	}
	known := make([]string, 0, len(fields))
	for _, f := range fields {
		known = append(known, f.name)
		if x, ok := m[f.name]; ok && x != nil {
			f.read(x, ptr+"/"+f.name)
		}
	}
	for _, k := range sortedKeys(m) {
		if !slices.Contains(known, k) {
			r.add(ptr+pointer(k), "unknown-field", "%s has no field %q%s", what, k, DidYouMean(k, known))
		}
	}
	return true
}

func (r *reader) definition(def *Definition, v any) {
	ok := r.object(v, "", "a flow", []field{
		{"name", r.text(&def.Name, maxName)},
		{"description", r.text(&def.Description, maxText)},
		{"nodes", func(v any, ptr string) { def.Nodes = readList(r, v, ptr, MaxNodes, r.node) }},
		{"edges", func(v any, ptr string) { def.Edges = readList(r, v, ptr, MaxEdges, r.edge) }},
		{"settings", func(v any, ptr string) { r.settings(&def.Settings, v, ptr) }},
		{"labels", func(v any, ptr string) { def.Labels = r.labels(v, ptr) }},
		{"inputSchema", func(v any, ptr string) {
			switch v.(type) {
			case map[string]any, bool:
			default:
				r.add(ptr, "type", "a JSON Schema is an object or a boolean, not %s", kindOf(v))
			}
		}},
	})
	if !ok {
		return
	}
	if strings.TrimSpace(def.Name) == "" && !r.has("/name") {
		r.add("/name", "required", "a flow needs a name")
	}
	if len(def.Nodes) == 0 && !r.has("/nodes") {
		r.add("/nodes", "required", "a flow needs at least one node: a trigger")
	}
}

// has tells whether a problem with this pointer is noted already.
func (r *reader) has(ptr string) bool {
	return slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Pointer == ptr })
}

func (r *reader) node(v any, ptr string) Node {
	var n Node
	ok := r.object(v, ptr, "a node", []field{
		{"id", r.text(&n.ID, maxName)},
		{"type", r.text(&n.Type, maxName)},
		{"typeVersion", r.integer(&n.TypeVersion, 0, 1_000_000)},
		{"name", r.text(&n.Name, maxName)},
		{"config", func(v any, ptr string) {
			if m, ok := v.(map[string]any); ok {
				n.Config = m
			} else {
				r.add(ptr, "type", "config is an object, not %s", kindOf(v))
			}
		}},
		{"timeout", r.duration(&n.Timeout)},
		{"retry", func(v any, ptr string) { n.Retry = r.retry(v, ptr) }},
		{"onError", r.oneOf(&n.OnError, OnErrorFail, OnErrorContinue, OnErrorRoute)},
		{"pool", r.text(&n.Pool, maxName)},
		{"parent", r.text(&n.Parent, maxName)},
		{"compensate", r.text(&n.Compensate, maxName)},
		{"position", func(v any, ptr string) {
			n.Position = &Position{}
			r.object(v, ptr, "a position", []field{{"x", r.float(&n.Position.X)}, {"y", r.float(&n.Position.Y)}})
		}},
		{"notes", r.text(&n.Notes, maxText)},
	})
	if ok && n.ID == "" && !r.has(ptr+"/id") {
		r.add(ptr+"/id", "required", "a node needs an id")
	}
	if ok && n.Type == "" && !r.has(ptr+"/type") {
		r.add(ptr+"/type", "required", "a node needs a type; GET /catalog/nodes lists them")
	}
	return n
}

func (r *reader) edge(v any, ptr string) Edge {
	var e Edge
	ok := r.object(v, ptr, "an edge", []field{
		{"from", r.text(&e.From, maxName)}, {"port", r.text(&e.Port, maxName)}, {"to", r.text(&e.To, maxName)},
	})
	if ok && e.From == "" && !r.has(ptr+"/from") {
		r.add(ptr+"/from", "required", "an edge needs the id of the node that it comes from")
	}
	if ok && e.To == "" && !r.has(ptr+"/to") {
		r.add(ptr+"/to", "required", "an edge needs the id of the node that it goes to")
	}
	return e
}

func (r *reader) retry(v any, ptr string) *Retry {
	retry := &Retry{}
	ok := r.object(v, ptr, "retry", []field{
		{"maxAttempts", r.integer(&retry.MaxAttempts, 1, 100)},
		{"backoff", r.oneOf(&retry.Backoff, BackoffExponential, BackoffFixed)},
		{"initialDelay", r.duration(&retry.InitialDelay)},
		{"maxDelay", r.duration(&retry.MaxDelay)},
		{"jitter", r.boolean(&retry.Jitter)},
	})
	if ok && retry.MaxAttempts == 0 && !r.has(ptr+"/maxAttempts") {
		r.add(ptr+"/maxAttempts", "required", "retry needs maxAttempts: all tries, the first one included")
	}
	return retry
}

func (r *reader) settings(s *Settings, v any, ptr string) {
	r.object(v, ptr, "settings", []field{
		{"timeout", r.duration(&s.Timeout)},
		{"priority", r.oneOf(&s.Priority, "high", "normal", "low")},
		{"pool", r.text(&s.Pool, maxName)},
		{"retention", r.duration(&s.Retention)},
		{"concurrency", func(v any, ptr string) {
			s.Concurrency = readList(r, v, ptr, 10, func(v any, ptr string) (c Concurrency) {
				r.object(v, ptr, "a concurrency limit", []field{{"key", r.text(&c.Key, maxText)}, {"limit", r.integer(&c.Limit, 1, 1_000_000)},
					{"onLimit", r.oneOf(&c.OnLimit, "queue", "reject", "cancel_oldest", "cancel_newest")}})
				return c
			})
		}},
		{"rate", func(v any, ptr string) {
			s.Rate = readList(r, v, ptr, 10, func(v any, ptr string) (c Rate) {
				r.object(v, ptr, "a rate limit", []field{{"key", r.text(&c.Key, maxText)}, {"limit", r.integer(&c.Limit, 1, 1_000_000)}, {"per", r.duration(&c.Per)}})
				return c
			})
		}},
		{"fairness", func(v any, ptr string) {
			s.Fairness = &Fairness{}
			r.object(v, ptr, "fairness", []field{{"key", r.text(&s.Fairness.Key, maxText)}, {"weight", func(v any, _ string) { s.Fairness.Weight = v }}})
		}},
		{"debounce", func(v any, ptr string) {
			s.Debounce = &Debounce{}
			r.object(v, ptr, "debounce", []field{{"key", r.text(&s.Debounce.Key, maxText)}, {"delay", r.duration(&s.Debounce.Delay)},
				{"maxDelay", r.duration(&s.Debounce.MaxDelay)}, {"collect", r.boolean(&s.Debounce.Collect)}})
		}},
	})
}

func (r *reader) labels(v any, ptr string) map[string]string {
	m, ok := v.(map[string]any)
	if !ok {
		r.add(ptr, "type", "labels are an object of strings, not %s", kindOf(v))
		return nil
	}
	if len(m) > maxLabels {
		r.add(ptr, "too-many", "%d labels, the most is %d", len(m), maxLabels)
		return nil
	}
	out := make(map[string]string, len(m))
	for _, k := range sortedKeys(m) {
		s, ok := m[k].(string)
		switch {
		case !ok:
			r.add(ptr+pointer(k), "type", "a label is a string, not %s", kindOf(m[k]))
		case len(s) > maxName || len(k) > maxName || k == "":
			r.add(ptr+pointer(k), "range", "a label's name and text have 1 to %d characters", maxName)
		default:
			out[k] = s
		}
	}
	return out
}

func readList[T any](r *reader, v any, ptr string, most int, read func(v any, ptr string) T) []T {
	list, ok := v.([]any)
	if !ok {
		r.add(ptr, "type", "a list is expected, not %s", kindOf(v))
		return nil
	}
	if len(list) > most {
		r.add(ptr, "too-many", "%d entries, the most is %d", len(list), most)
		return nil
	}
	out := make([]T, len(list))
	for i, x := range list {
		out[i] = read(x, ptr+"/"+strconv.Itoa(i))
	}
	return out
}

func (r *reader) text(to *string, most int) func(any, string) {
	return func(v any, ptr string) {
		s, ok := v.(string)
		switch {
		case !ok:
			r.add(ptr, "type", "a string is expected, not %s", kindOf(v))
		case len(s) > most:
			r.add(ptr, "too-long", "%d bytes, the most is %d", len(s), most)
		default:
			*to = s
		}
	}
}

func (r *reader) boolean(to *bool) func(any, string) {
	return func(v any, ptr string) {
		b, ok := v.(bool)
		if !ok {
			r.add(ptr, "type", "true or false is expected, not %s", kindOf(v))
		}
		*to = b
	}
}

func (r *reader) integer(to *int, low, high int) func(any, string) {
	return func(v any, ptr string) {
		n, ok := v.(int)
		if f, isFloat := v.(float64); isFloat && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			n, ok = int(f), true
		}
		switch {
		case !ok:
			r.add(ptr, "type", "a whole number is expected, not %s", describe(v))
		case n < low || n > high:
			r.add(ptr, "range", "%d is not within %d to %d", n, low, high)
		default:
			*to = n
		}
	}
}

func (r *reader) float(to *float64) func(any, string) {
	return func(v any, ptr string) {
		switch x := v.(type) {
		case int:
			*to = float64(x)
		case float64:
			*to = x
		default:
			r.add(ptr, "type", "a number is expected, not %s", describe(v))
		}
	}
}

func (r *reader) duration(to *Duration) func(any, string) {
	return func(v any, ptr string) {
		d, err := durationOf(v)
		switch {
		case err != nil:
			r.add(ptr, "duration", "%s", err.Error())
		case d < 0:
			r.add(ptr, "range", "a duration can't be negative")
		default:
			*to = d
		}
	}
}

func (r *reader) oneOf(to *string, allowed ...string) func(any, string) {
	return func(v any, ptr string) {
		s, ok := v.(string)
		if !ok || !slices.Contains(allowed, s) {
			r.add(ptr, "one-of", "%s is not one of %s", describe(v), strings.Join(allowed, ", "))
			return
		}
		*to = s
	}
}

// describe shows a value that is wrong, shortly.
func describe(v any) string {
	switch x := v.(type) {
	case string:
		if len(x) > 40 {
			x = cleanString(x[:40]) + "…"
		}
		return strconv.Quote(x)
	case int, float64, json.Number, bool:
		return fmt.Sprint(x)
	}
	return kindOf(v)
}
