package flow

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Limits of containers.
const (
	MaxRounds      = 1_000_000
	MaxConcurrency = 1000
	MaxListBytes   = 4 << 20 // of what the rounds of a container gave, as JSON
	defaultRounds  = 1000    // of logic.while
)

// What logic.foreach does when a round fails.
const (
	OnItemFail     = "fail"     // the container fails, rounds in flight are given up
	OnItemContinue = "continue" // null stands in the list
	OnItemCollect  = "collect"  // {"error": {…}} stands in the list
)

// The last rounds that ended are kept for people: at most keptRounds of a container, and as many as have keptSteps steps together.
const (
	keptRounds = 20
	keptSteps  = 200
)

// rounds is what a container is doing.
type rounds struct {
	items   []any // of Foreach
	total   int
	limit   int // how many at once
	onItem  string
	next    int      // number of the next round to begin
	open    []*frame // by number
	kept    []*frame // rounds that ended, the last ones, in the order in which they did
	results []any    // by number, of the rounds begun
	size    int      // of the results, about
	last    time.Time
	failure *Failure // why it fails, once what is in flight has ended
}

// turn takes a container on: it evaluates its config when it begins, and begins rounds, or ends.
func (s *State) turn(st *step) {
	if st.rounds == nil && !s.enter(st) {
		return
	}
	s.active--
	st.state = stepOpen
	r := st.rounds
	if r.size > MaxListBytes {
		s.failed(st, st.tooLarge())
		return
	}
	if st.n.container != While || len(r.open) > 0 {
		s.pump(st)
		return
	}
	v, err := st.n.formulas["/condition"].Eval(st.scope, r.lastResult(), r.next)
	more, ok := v.(bool)
	switch {
	case err != nil:
		s.failed(st, &Failure{Code: "expression", Message: "config" + err.Error()})
	case !ok:
		s.failed(st, &Failure{Code: "config", Message: fmt.Sprintf("condition is %s, it must be true or false: compare, as in {{ index < 3 }}", kindOf(v))})
	case more && r.next == r.total:
		s.failed(st, &Failure{Code: "max-rounds", Message: fmt.Sprintf("the condition still holds after %d rounds, the most that maxRounds allows: raise it, or look at why the loop doesn't come to an end", r.total)})
	case more:
		s.openRound(st, r.next, r.last)
	default:
		s.close1(st)
	}
}

// enter evaluates a container's config.
func (s *State) enter(st *step) bool {
	st.started = st.entry
	r := &rounds{limit: 1, total: 1, last: st.entry}
	var bad *Failure
	if err := s.evaluate(st); err != nil {
		bad = &Failure{Code: "expression", Message: "config" + err.Error()}
	} else {
		bad = r.configure(st.n.container, st.config)
	}
	if bad != nil {
		s.end(st, bad, st.entry)
		return false
	}
	st.rounds = r
	return true
}

func (r *rounds) configure(c Container, config map[string]any) *Failure {
	wrong := func(format string, args ...any) *Failure {
		return &Failure{Code: "config", Message: fmt.Sprintf(format, args...)}
	}
	number := func(key string, otherwise, most int) (int, *Failure) {
		v, ok := config[key]
		if !ok || v == nil {
			return otherwise, nil
		}
		if n, ok := v.(int); ok && n >= 1 && n <= most {
			return n, nil
		}
		return 0, wrong("%s must be a whole number from 1 to %d", key, most)
	}
	var bad *Failure
	switch c {
	case Foreach:
		list, ok := config["items"].([]any)
		switch {
		case !ok:
			return wrong("items is %s, it must be a list", kindOf(config["items"]))
		case len(list) > MaxRounds:
			return wrong("items has %d entries, the most is %d", len(list), MaxRounds)
		}
		r.items, r.total = list, len(list)
		switch v := config["onItemError"]; v {
		case nil:
			r.onItem = OnItemFail
		case OnItemFail, OnItemContinue, OnItemCollect:
			r.onItem = v.(string)
		default:
			return wrong("onItemError must be one of fail, continue, collect")
		}
		r.limit, bad = number("concurrency", 1, MaxConcurrency)
	case While:
		r.total, bad = number("maxRounds", defaultRounds, MaxRounds)
	}
	return bad
}

// lastResult is what `item` is in a while: the output of the round before.
func (r *rounds) lastResult() any {
	if r.next == 0 {
		return nil
	}
	return r.results[r.next-1]
}

// pump begins rounds as long as there are any and as many as may run at once; without any left it ends the container.
func (s *State) pump(st *step) {
	r := st.rounds
	if st.n.container != While {
		for len(r.open) < r.limit && r.next < r.total {
			entry := st.entry
			if r.limit == 1 { // one after the other: time goes on from round to round
				entry = r.last
			}
			s.openRound(st, r.next, entry)
		}
	}
	switch {
	case len(r.open) > 0:
	case st.n.container == While: // it looks at its condition again
		st.state = stepReady
		s.active++
		s.ready = append(s.ready, st)
	case r.next == r.total:
		s.close1(st)
	}
}

// openRound begins a round, or lays out one that a checkpoint says has begun.
func (s *State) openRound(st *step, number int, entry time.Time) {
	r := st.rounds
	f := &frame{owner: st, number: number, iteration: strconv.Itoa(number), item: st.f.item, index: st.f.index, inRound: st.f.inRound}
	if st.f.iteration != "" {
		f.iteration = st.f.iteration + "." + f.iteration
	}
	switch st.n.container {
	case Foreach:
		f.item, f.index, f.inRound = r.items[number], number, true
	case While:
		f.item, f.index, f.inRound = nil, number, true
		if number > 0 {
			f.item = r.results[number-1]
		}
	}
	f.open(st.n.inner, entry)
	r.open = append(r.open, f)
	if number == r.next {
		r.next++
		r.results = append(r.results, nil)
	}
	for _, i := range f.scope.first {
		s.begin(&f.steps[i])
	}
}

// roundOver takes in what a round came to.
func (s *State) roundOver(f *frame) {
	st := f.owner
	r := st.rounds
	if i, ok := slices.BinarySearchFunc(r.open, f.number, byNumber); ok {
		r.open = slices.Delete(r.open, i, i+1)
	}
	if r.failure == nil {
		r.last = later(r.last, f.last())
	}
	s.close(f)
	if r.failure == nil && !st.f.void() {
		s.take(st, f)
	}
	switch {
	case st.f.void(): // the frame around ends it
	case st.state != stepOpen: // what its rounds gave is too large, and that ended it
	case r.failure == nil:
		s.pump(st)
	default:
		for _, o := range slices.Clone(r.open) {
			if o.running == 0 {
				s.close(o)
				r.open = slices.DeleteFunc(r.open, func(x *frame) bool { return x == o })
			}
		}
		if len(r.open) == 0 {
			s.failed(st, r.failure)
		}
	}
}

// take keeps a round's result.
func (s *State) take(st *step, f *frame) {
	r := st.rounds
	var value any
	switch {
	case f.failure == nil:
		value = f.output()
	case st.n.container == Try: // close1 tells of it
	case st.n.container == Foreach && r.onItem == OnItemContinue:
	case st.n.container == Foreach && r.onItem == OnItemCollect:
		value = map[string]any{"error": f.failure.value()}
	default:
		s.giveUp(st, f.told(f.failure))
	}
	r.keep(f)
	r.results[f.number] = value
	switch r.size += sizeOf(value, MaxListBytes) + 1; {
	case r.size <= MaxListBytes || r.failure != nil:
	case st.deadly():
		s.failed(st, st.tooLarge())
	default:
		s.giveUp(st, st.tooLarge())
	}
}

func (st *step) tooLarge() *Failure {
	return &Failure{Code: "output", Node: st.n.id,
		Message: fmt.Sprintf("what the rounds gave has more than %d MiB together: let each end with less, for example with a data.set of what later steps need", MaxListBytes>>20)}
}

// giveUp lets a container fail: its other rounds begin nothing more.
func (s *State) giveUp(st *step, why *Failure) {
	st.rounds.failure = why
	s.voids++
}

func (r *rounds) keep(f *frame) {
	most := max(1, min(keptRounds, keptSteps/len(f.steps)))
	if f.scope.depth > 1 {
		most = 1
	}
	if len(r.kept) >= most {
		r.kept = slices.Delete(r.kept, 0, len(r.kept)-most+1)
	}
	r.kept = append(r.kept, f)
}

// close1 settles a container whose rounds have all ended.
func (s *State) close1(st *step) {
	r := st.rounds
	st.last = later(st.last, r.last)
	st.ended = st.last
	s.leave(st)
	if st.n.container != Try {
		st.output = r.results
		if r.results == nil {
			st.output = []any{}
		}
		s.settle(st, stepSucceeded, PortMain)
		return
	}
	if f := r.kept[len(r.kept)-1]; f.failure != nil {
		st.output, st.err = f.failure.value(), f.failure
		s.settle(st, stepSucceeded, PortError)
		return
	}
	st.output = r.results[0]
	s.settle(st, stepSucceeded, PortMain)
}

// failed settles a container that came to no good end.
func (s *State) failed(st *step, f *Failure) {
	st.last = later(st.last, st.rounds.last)
	s.end(st, f, st.last)
}

// value shows a failure to later steps.
func (f *Failure) value() map[string]any {
	v := map[string]any{"code": f.Code, "message": f.Message, "node": f.Node}
	if data, err := CanonicalWithin(f.Data, MaxListBytes); err == nil && data != nil {
		v["data"] = data
	}
	return v
}

// sizeOf is about how many bytes a value has as JSON, limit+1 if it is more.
func sizeOf(v any, limit int) int {
	c := canonizer{left: limit}
	if _, err := c.value(v, 0); err != nil {
		return limit + 1
	}
	return limit - c.left
}
