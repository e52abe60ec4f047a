package runner

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// Values keeps what is too large for messages, behind the orchestrators. Each call is one try.
type Values interface {
	// Put stores a value; nil means: committed. ErrValues when the execution may have no more.
	Put(ctx context.Context, execution protocol.ID, ref string, raw []byte) error
	// Get gives a value, compared with its name. ErrNoValue when there is none.
	Get(ctx context.Context, execution protocol.ID, ref string) ([]byte, error)
}

// Errors of Values. All others mean: try again.
var (
	ErrValues  = errors.New("the large values of an execution take more than it may have")
	ErrNoValue = errors.New("there is no such value, or no such execution any more")
)

// Bounds of what stands in messages themselves. Once a report, or a task with all its steps, has so much, larger values than smallValue go by reference too:
// a message never grows beyond what a broker takes, whatever comes together.
const (
	inlineReport = 1 << 20
	inlineTask   = 4 << 20
	smallValue   = 16 << 10
)

const (
	valueTry     = 15 * time.Second // one Put or Get
	fetchTries   = 4                // of an input or step, before the task goes back
	storesAtOnce = 4                // values that are encoded and sent at a time: each takes up to three times its size
)

// values stores and fetches, with a cache of what was seen last.
type values struct {
	r     *Runner
	slots chan struct{}

	mu     sync.Mutex
	room   int // bytes that the cache may hold
	held   int
	recent list.List // of *cachedValue, the last used in front
	by     map[string]*list.Element
}

type cachedValue struct {
	key string
	raw []byte
}

func newValues(r *Runner, room int) *values {
	return &values{r: r, slots: make(chan struct{}, storesAtOnce), room: room, by: map[string]*list.Element{}}
}

func (v *values) cached(key string) ([]byte, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.by[key]
	if e == nil {
		return nil, false
	}
	v.recent.MoveToFront(e)
	return e.Value.(*cachedValue).raw, true
}

func (v *values) keep(key string, raw []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by[key] != nil || len(raw) > v.room/2 { // one value must not drive out all others
		return
	}
	v.by[key] = v.recent.PushFront(&cachedValue{key, raw})
	for v.held += len(raw); v.held > v.room; {
		last := v.recent.Back()
		old := v.recent.Remove(last).(*cachedValue)
		delete(v.by, old.key)
		v.held -= len(old.raw)
	}
}

// fetch reads a value for a run that begins.
func (v *values) fetch(ctx context.Context, execution protocol.ID, ref string) (json.RawMessage, error) {
	key := execution.String() + ref
	if raw, ok := v.cached(key); ok {
		v.r.metrics.values.WithLabelValues("cached").Inc()
		return raw, nil
	}
	var err error
	for try := range fetchTries {
		if try > 0 && !rest(ctx, jitter(100*time.Millisecond<<try)) {
			break
		}
		own, cancel := context.WithTimeout(ctx, valueTry)
		var raw []byte
		raw, err = v.r.opts.Values.Get(own, execution, ref)
		cancel()
		if err == nil {
			v.r.metrics.values.WithLabelValues("fetched").Inc()
			v.keep(key, raw)
			return raw, nil
		}
		if errors.Is(err, ErrNoValue) {
			break
		}
	}
	return nil, fmt.Errorf("runner: value %s: %w", ref, err)
}

// errLetGo ends the storing of a value that nobody waits for any more.
var errLetGo = errors.New("the run is over, or is given up")

// store puts a value into the payloads and keeps trying while ctx and the session of the run's owner live (zero: nobody claimed it). An error is errLetGo, or a *node.Error
// that fails the step.
func (v *values) store(ctx context.Context, t *run, raw []byte, owner protocol.ID) (*protocol.Value, error) {
	if len(raw) > protocol.MaxValue {
		return nil, tooLarge(len(raw))
	}
	ref := &protocol.Value{Ref: payload.Ref(raw), Size: len(raw)}
	key := t.text + ref.Ref
	if t.hasStored(ref.Ref) {
		return ref, nil
	}
	for tries := 0; ; tries++ {
		own, cancel := context.WithTimeout(ctx, valueTry)
		err := v.r.opts.Values.Put(own, t.id, ref.Ref, raw)
		cancel()
		switch {
		case err == nil:
			v.r.metrics.values.WithLabelValues("stored").Inc()
			v.keep(key, raw)
			t.addStored(ref.Ref)
			return ref, nil
		case errors.Is(err, ErrValues):
			return nil, tooMuch(len(raw))
		case ctx.Err() != nil, errors.Is(err, ErrNoValue):
			return nil, errLetGo
		}
		if session, _ := v.r.window.Current(); !owner.IsZero() && session != owner {
			return nil, errLetGo
		}
		v.r.metrics.values.WithLabelValues("unanswered").Inc()
		if tries%20 == 0 {
			v.r.log.Warn("a large value can't be stored now: trying another orchestrator, its run waits", "error", err, "execution", t.text, "bytes", len(raw), "tries", tries+1)
		}
		if tries > 0 && !rest(ctx, jitter(min(20*time.Millisecond<<min(tries, 6), time.Second))) {
			return nil, errLetGo
		}
	}
}

func tooLarge(n int) *node.Error {
	return &node.Error{Code: "value-too-large", Message: fmt.Sprintf("the output has %d bytes as JSON, %d are allowed: select what later steps need (for http.request: a smaller page), or store it elsewhere and pass its address", n, protocol.MaxValue)}
}

func tooMuch(n int) *node.Error {
	return &node.Error{Code: "value-too-large", Message: fmt.Sprintf("with this output of %d bytes the execution's large values take more than the %d bytes that it may have: pass on less, or store it elsewhere and pass its address", n, protocol.MaxPayloads)}
}

// deliver tells a run what came of a try whose output may be too large for a message: it is stored first. That takes as long as the orchestrators are away,
// while the session lives. The try is over: the window and its timeout don't count any more, and a cut comes too late.
func (t *run) deliver(cmd flow.Command, started time.Time, result node.Result, owner protocol.ID) {
	ref, err := t.r.values.output(t, result.Output, owner)
	if err == errLetGo {
		t.r.metrics.steps.WithLabelValues(cmd.Type, "cut").Inc()
		t.tell(news{kind: newsCut, key: cmd.Key}, true)
		return
	}
	if err == nil && result.Wait != nil && ref != nil { // what is stored isn't the step's output
		result.Wait, err = opens(result.Wait, nil, ref)
		result.Output, ref = nil, nil
	}
	t.tell(news{kind: newsCompleted, key: cmd.Key, event: t.r.event(cmd, started, result, err), ref: ref}, true)
}

// opens gives a wait what it opens with: a value, or where it is stored.
func opens(w *flow.Wait, value any, ref *protocol.Value) (*flow.Wait, error) {
	fields := map[string]any{}
	if len(w.Open) > 0 {
		if err := json.Unmarshal(w.Open, &fields); err != nil {
			return nil, err
		}
	}
	if ref != nil {
		fields["ref"] = ref
	} else {
		raw, err := flow.EncodeValue(value)
		if err != nil {
			return nil, err
		}
		fields["input"] = json.RawMessage(raw)
	}
	open, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	out := *w
	out.Open = open
	return &out, nil
}

// output is how an output goes into a report: by itself (nil), or by reference.
func (v *values) output(t *run, out any, owner protocol.ID) (*protocol.Value, error) {
	ctx := v.r.patience
	select { // before it is encoded: that takes memory
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return nil, errLetGo
	}
	raw, err := flow.EncodeValue(out)
	switch {
	case err != nil:
		return nil, &node.Error{Code: "value-unfit", Message: "the output can't be written as JSON: " + err.Error(), Err: err}
	case len(raw) <= protocol.MaxInline && t.room(len(raw)):
		return nil, nil
	}
	return v.store(ctx, t, raw, owner)
}

// report publishes an entry; the output of a last one is stored first where it is too large for a message. Most often it is a step's, and stored already.
func (t *run) report(e *protocol.Entry) {
	t.mu.Lock()
	t.inlineReport = 0
	t.mu.Unlock()
	e.Logs = t.takeLines()
	if len(e.Output) <= protocol.MaxInline {
		t.out = t.r.reports.add(t, e)
		return
	}
	raw, owner := e.Output, t.machine.Owner()
	go func() {
		ref, err := t.r.values.store(t.r.ctx, t, raw, owner)
		t.tell(news{kind: newsStored, entry: e, ref: ref, err: err}, false)
	}()
}

func (t *run) outputStored(e *protocol.Entry, ref *protocol.Value, err error) {
	var reason *node.Error
	switch {
	case t.machine.Done():
		return
	case errors.As(err, &reason):
		e.State, e.Error = protocol.Failed, failure("", reason)
	case err != nil:
		return // the session is over, which the run is about to hear, or the worker ends
	}
	e.Output, e.OutputRef = nil, ref
	t.out = t.r.reports.add(t, e)
}

// inline tells that an output goes into the report itself, seen without encoding it, and counts it then.
func (t *run) inline(out any) bool {
	n := bound(out, protocol.MaxInline)
	return n <= protocol.MaxInline && t.room(n)
}

// room counts bytes of the next report, unless it has too many already.
func (t *run) room(n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > smallValue && (t.inlineReport+n > inlineReport || t.inlineTask+n > inlineTask) {
		return false
	}
	t.inlineReport += n
	t.inlineTask += n
	return true
}

func (t *run) hasStored(ref string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stored[ref]
}

func (t *run) addStored(ref string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stored == nil {
		t.stored = map[string]bool{}
	}
	t.stored[ref] = true
}
