package flow

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of flow control.
const (
	MaxLimits       = 5 // concurrency limits of a flow, and rates
	MaxRatePer      = 31 * 24 * time.Hour
	MinDebounce     = 100 * time.Millisecond
	MaxDebounce     = 7 * 24 * time.Hour
	maxWeight       = 1000
	maxKeyText      = 128 // of a key's value as it is stored; longer ones are told apart by a hash
	defaultMaxDelay = 10  // times the delay
	maxCancelOldest = 1000
)

// Limits is what flow control makes of an input: the settings with their keys computed.
type Limits struct {
	Concurrency []string // values of the keys, in the order of the settings
	Rate        []string
	Fairness    string
	Weight      float64
	Debounce    string
}

// programLimits are the compiled keys of the settings.
type programLimits struct {
	concurrency, rate []*template
	fairness, weight  *template
	debounce          *template
}

// Limited tells whether the flow has settings of flow control.
func (p *Program) Limited() bool { return p.limits != nil }

// Limits computes the keys for an input; only for a Program that is Limited. Its errors name the setting.
func (p *Program) Limits(input any) (Limits, error) {
	s := &Scope{Input: input, Flow: p.view, Steps: func(string) (StepView, bool) { return StepView{}, false }}
	out := Limits{Weight: 1}
	var err error
	key := func(t *template) string {
		if t == nil || err != nil {
			return ""
		}
		var v any
		if v, err = t.eval(s, 0); err != nil {
			return ""
		}
		var text []byte
		if text, err = keyText(v); err != nil {
			err = &evalError{t.pointer, err}
		}
		return shortKey(string(text))
	}
	for _, t := range p.limits.concurrency {
		out.Concurrency = append(out.Concurrency, key(t))
	}
	for _, t := range p.limits.rate {
		out.Rate = append(out.Rate, key(t))
	}
	out.Fairness, out.Debounce = key(p.limits.fairness), key(p.limits.debounce)
	if w := p.limits.weight; w != nil && err == nil {
		var v any
		if v, err = w.eval(s, 0); err == nil {
			out.Weight, err = weightOf(v)
		}
		if err != nil {
			err = fmt.Errorf("/settings/fairness/weight: %w", err)
		}
	}
	return out, err
}

// keyText shows a key's value: strings as they are, everything else as JSON, so that 1 and "1" are one key and null is "null".
func keyText(v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return []byte(s), nil
	}
	return AppendValue(nil, v)
}

// shortKey bounds a key's value, so that any input has one that can be stored.
func shortKey(s string) string {
	clean := strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(clean) <= maxKeyText && clean == s {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	head := clean[:min(len(clean), maxKeyText/2)]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	return fmt.Sprintf("%s…%x", head, sum[:16])
}

func weightOf(v any) (float64, error) {
	var w float64
	switch x := v.(type) {
	case json.Number:
		w, _ = x.Float64()
	case float64:
		w = x
	case int:
		w = float64(x)
	case int64:
		w = float64(x)
	default:
		return 0, fmt.Errorf("a weight is a number, not %s", kindOf(v))
	}
	if !(w >= 0.001 && w <= maxWeight) || math.IsInf(w, 0) {
		return 0, fmt.Errorf("a weight is within 0.001 to %d, not %v", maxWeight, w)
	}
	return w, nil
}

// flowControl checks the settings of flow control and compiles their keys.
func (c *compiler) flowControl(lang Language) {
	s := &c.def.Settings
	if len(s.Concurrency)+len(s.Rate) == 0 && s.Fairness == nil && s.Debounce == nil {
		return
	}
	t := &templates{language: lang, cache: map[string]Expression{}, failed: map[string]*SyntaxError{}}
	t.problem = func(ptr, code string, column int, message string) {
		c.problems = append(c.problems, Problem{Pointer: ptr, Code: code, Message: message, Column: column})
	}
	t.use = func(ptr string, column int, e Expression) {
		if steps := e.Steps(); len(steps) > 0 {
			c.problems = append(c.problems, Problem{Pointer: ptr, Code: "input-only", Column: column, Message: fmt.Sprintf("steps.%s doesn't exist yet: flow control looks at the input, before the first step; use input", steps[0])})
		}
	}
	key := func(text, ptr string) *template {
		if !strings.Contains(text, "{{") && strings.HasPrefix(strings.TrimSpace(text), "input.") {
			c.add(ptr, "not-an-expression", "%s is a text, the same for every execution: write it as {{ %s }}", describe(text), strings.TrimSpace(text))
		}
		return t.compile(text, ptr)
	}
	p := &programLimits{}
	if len(s.Concurrency) > MaxLimits || len(s.Rate) > MaxLimits {
		c.add("/settings", "too-many", "a flow has at most %d concurrency limits and %d rates", MaxLimits, MaxLimits)
	}
	for i, l := range s.Concurrency {
		ptr := "/settings/concurrency/" + strconv.Itoa(i)
		if l.Limit < 1 {
			c.add(ptr+"/limit", "required", "a concurrency limit needs limit: how many may run at once, 1 at least")
		}
		if l.OnLimit == "cancel_oldest" && l.Limit > maxCancelOldest {
			c.add(ptr+"/limit", "range", "with cancel_oldest a limit is %d at most: all of them are looked at for each start", maxCancelOldest)
		}
		p.concurrency = append(p.concurrency, key(l.Key, ptr+"/key"))
	}
	for i, l := range s.Rate {
		ptr := "/settings/rate/" + strconv.Itoa(i)
		if l.Limit < 1 {
			c.add(ptr+"/limit", "required", "a rate needs limit: how many may start in the time that per says, 1 at least")
		}
		c.within(ptr+"/per", l.Per, time.Second, MaxRatePer)
		p.rate = append(p.rate, key(l.Key, ptr+"/key"))
	}
	if f := s.Fairness; f != nil {
		if f.Key == "" {
			c.add("/settings/fairness/key", "required", "fairness needs key: whose executions take turns")
		}
		p.fairness = key(f.Key, "/settings/fairness/key")
		if f.Weight != nil {
			p.weight = t.compile(f.Weight, "/settings/fairness/weight")
			if !p.weight.dynamic {
				if _, err := weightOf(f.Weight); err != nil {
					c.add("/settings/fairness/weight", "range", "%s", err.Error())
				}
			}
		}
	}
	if d := s.Debounce; d != nil {
		c.within("/settings/debounce/delay", d.Delay, MinDebounce, MaxDebounce)
		if d.MaxDelay != 0 {
			c.within("/settings/debounce/maxDelay", d.MaxDelay, max(MinDebounce, time.Duration(d.Delay)), MaxDebounce)
		}
		p.debounce = key(d.Key, "/settings/debounce/key")
	}
	c.p.limits = p
}

// Longest is how long after the first start a debounced execution begins at the latest.
func (d *Debounce) Longest() time.Duration {
	if d.MaxDelay > 0 {
		return time.Duration(d.MaxDelay)
	}
	return min(defaultMaxDelay*time.Duration(d.Delay), MaxDebounce)
}

// PointerOf is the place that an error of Program.Limits is about; "" when it names none.
func PointerOf(err error) string {
	var at *evalError
	if errors.As(err, &at) {
		return at.pointer
	}
	return ""
}
