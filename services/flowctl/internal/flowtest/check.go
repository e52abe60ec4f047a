package flowtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
)

// maxProblems is how many differences of one value are shown.
const maxProblems = 20

// Got is what became of an execution, as the API tells it.
type Got struct {
	ID     string          `json:"id"`
	Status string          `json:"status"`
	Output json.RawMessage `json:"output"`
	Error  *Error          `json:"error"`
	Steps  []GotStep       `json:"-"`
}

// GotStep is a step of it.
type GotStep struct {
	Node   string          `json:"node"`
	Status string          `json:"status"`
	Port   string          `json:"port"`
	Output json.RawMessage `json:"output"`
	Error  *Error          `json:"error"`
}

// check compares, and gives the differences in words.
func (x *Expect) check(got *Got) []string {
	var out []string
	want := x.Status
	if want == "" {
		if want = "succeeded"; x.Error != nil {
			want = "failed"
		}
	}
	if got.Status != want {
		line := fmt.Sprintf("status: is %s, want %s", got.Status, want)
		if got.Error != nil && x.Error == nil {
			line += fmt.Sprintf(" (%s)", got.Error)
		}
		out = append(out, line)
	}
	if x.Error != nil {
		out = append(out, x.Error.check("error", got.Error)...)
	}
	out = append(out, differences("output", x.Output, got.Output, false)...)
	out = append(out, differences("output", x.Contains, got.Output, true)...)
	out = append(out, x.checkPath(got.Steps)...)
	last := map[string]GotStep{}
	for _, s := range got.Steps {
		last[s.Node] = s
	}
	for _, node := range slices.Sorted(maps.Keys(x.Steps)) {
		s, is := last[node]
		if !is {
			out = append(out, fmt.Sprintf("steps.%s: there is no such step", node))
			continue
		}
		w := x.Steps[node]
		out = append(out, w.check("steps."+node, s)...)
	}
	return out
}

func (w *Step) check(at string, s GotStep) []string {
	var out []string
	if w.Status != "" && w.Status != s.Status {
		out = append(out, fmt.Sprintf("%s.status: is %s, want %s", at, s.Status, w.Status))
	}
	if w.Port != "" && w.Port != s.Port && (w.Port != portMain || s.Port != "") {
		out = append(out, fmt.Sprintf("%s.port: is %q, want %q", at, s.Port, w.Port))
	}
	if w.Error != nil {
		out = append(out, w.Error.check(at+".error", s.Error)...)
	}
	out = append(out, differences(at+".output", w.Output, s.Output, false)...)
	return append(out, differences(at+".output", w.Contains, s.Output, true)...)
}

func (e *Error) String() string {
	s := e.Code + ": " + e.Message
	if e.Node != "" {
		s += ", node " + e.Node
	}
	return s
}

func (e *Error) check(at string, got *Error) []string {
	if got == nil {
		return []string{at + ": there is none, want " + e.String()}
	}
	var out []string
	for _, f := range []struct{ name, want, got string }{{"code", e.Code, got.Code}, {"message", e.Message, got.Message}, {"node", e.Node, got.Node}} {
		if f.want != "" && f.want != f.got {
			out = append(out, fmt.Sprintf("%s.%s: is %q, want %q", at, f.name, f.got, f.want))
		}
	}
	return out
}

// checkPath compares which steps ran. The order of branches that run at once is nobody's promise, so the order of the list isn't compared.
func (x *Expect) checkPath(steps []GotStep) []string {
	var ran []string
	for _, s := range steps {
		if (s.Status == "succeeded" || s.Status == "failed") && !slices.Contains(ran, s.Node) {
			ran = append(ran, s.Node)
		}
	}
	var missing, extra []string
	for _, node := range slices.Concat(x.Path, x.Includes) {
		if !slices.Contains(ran, node) {
			missing = append(missing, node)
		}
	}
	for _, node := range ran {
		if x.Path != nil && !slices.Contains(x.Path, node) || slices.Contains(x.Excludes, node) {
			extra = append(extra, node)
		}
	}
	if len(missing)+len(extra) == 0 {
		return nil
	}
	var said []string
	if len(missing) > 0 {
		said = append(said, "did not run: "+strings.Join(missing, ", "))
	}
	if len(extra) > 0 {
		said = append(said, "should not have run: "+strings.Join(extra, ", "))
	}
	return []string{fmt.Sprintf("path: %s (what ran: %s)", strings.Join(said, "; "), strings.Join(ran, ", "))}
}

// differences of what is wanted and what is there; nil wants nothing. part: of objects only the fields that are named.
func differences(at string, want Value, got json.RawMessage, part bool) []string {
	if want == nil {
		return nil
	}
	if len(got) == 0 {
		got = json.RawMessage("null")
	}
	w, err := decode(want)
	if err != nil {
		return []string{fmt.Sprintf("%s: what is wanted is no JSON: %v", at, err)}
	}
	g, err := decode(got)
	if err != nil {
		return []string{fmt.Sprintf("%s: it is no JSON: %v", at, err)}
	}
	d := differ{part: part}
	d.compare(at, w, g)
	if more := len(d.out) - maxProblems; more > 0 {
		d.out = append(d.out[:maxProblems], fmt.Sprintf("%s: and %d more differences", at, more))
	}
	return d.out
}

func decode(b []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}

type differ struct {
	part bool
	out  []string
}

func (d *differ) say(at, format string, args ...any) {
	d.out = append(d.out, at+": "+fmt.Sprintf(format, args...))
}

func (d *differ) compare(at string, want, got any) {
	switch w := want.(type) {
	case object:
		g, ok := got.(object)
		if !ok {
			d.say(at, "is %s, want %s", show(got), show(want))
			return
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if v, is := g[key]; is {
				d.compare(at+"."+key, w[key], v)
			} else {
				d.say(at+"."+key, "is missing, want %s", show(w[key]))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(g)) {
			if _, is := w[key]; !is && !d.part {
				d.say(at+"."+key, "is %s, want none", show(g[key]))
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			d.say(at, "is %s, want %s", show(got), show(want))
			return
		}
		for i := range w {
			d.compare(fmt.Sprintf("%s[%d]", at, i), w[i], g[i])
		}
	case json.Number:
		if g, ok := got.(json.Number); !ok || !equal(w, g) {
			d.say(at, "is %s, want %s", show(got), show(want))
		}
	default:
		if want != got {
			d.say(at, "is %s, want %s", show(got), show(want))
		}
	}
}

// equal compares numbers by value: 1.0 is 1.
func equal(a, b json.Number) bool {
	if a == b {
		return true
	}
	if len(a)+len(b) > 200 { // an exponent can make any number of digits of few
		return false
	}
	x, _, err1 := big.ParseFloat(string(a), 10, 512, big.ToNearestEven)
	y, _, err2 := big.ParseFloat(string(b), 10, 512, big.ToNearestEven)
	return err1 == nil && err2 == nil && x.Cmp(y) == 0
}

// maxShown is how much of a value is shown.
const maxShown = 200

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > maxShown {
		return strings.ToValidUTF8(string(b[:maxShown]), "") + "…"
	}
	return string(b)
}
