// Package start makes executions: whatever begins them (people, webhooks, schedules, other flows), the same rules say which version runs, with which
// priority, labels and deadline, and which inputs it takes. It stores nothing.
package start

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// MaxInput is the most that an input may have, in bytes.
const MaxInput = protocol.MaxValue

// ErrNoVersion says that the flow has no version that could be started: none is published, or there is none with the number asked for.
var ErrNoVersion = errors.New("there is no such version")

// Request is what whoever starts may choose.
type Request struct {
	Version  int    // 0: the published one
	Priority string // "": the flow's own
	Labels   map[string]string
	Trigger  string // "manual", or what Program.Entry takes
	Client   string // who starts it, for people
	Now      time.Time
	Shards   int
}

// Plan is everything that the starts of one request share.
type Plan struct {
	Head     store.Flow
	Version  *definitions.Version
	Trigger  string // what Program.Entry takes
	priority string
	labels   map[string]string
	now      time.Time
	deadline time.Time
	shards   int
	client   string
}

// Prepare finds the version and what holds for all starts of it. ErrNoVersion; *definitions.UnusableError when this build can't run the version.
func Prepare(ctx context.Context, defs *definitions.Definitions, head store.Flow, r Request) (*Plan, error) {
	n := r.Version
	if n == 0 {
		n = head.Published
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: the flow %q has no published version, only drafts: publish one, or name a version", ErrNoVersion, head.Name)
	}
	v, err := defs.Version(ctx, head, n)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: the flow %q has no version %d", ErrNoVersion, head.Name, n)
	}
	if err != nil {
		return nil, err
	}
	settings := &v.Definition().Settings
	// Microseconds are what the database keeps: the task and the row must agree.
	p := &Plan{Head: head, Version: v, priority: r.Priority, labels: r.Labels, now: r.Now.UTC().Truncate(time.Microsecond), shards: r.Shards, Trigger: r.Trigger, client: r.Client}
	if p.priority == "" {
		p.priority = settings.Priority
	}
	if p.priority == "" {
		p.priority = "normal"
	}
	if settings.Timeout > 0 {
		p.deadline = p.now.Add(time.Duration(settings.Timeout))
	}
	if own := v.Definition().Labels; len(own) > 0 {
		p.labels = make(map[string]string, len(own)+len(r.Labels))
		maps.Copy(p.labels, own)
		maps.Copy(p.labels, r.Labels)
	}
	return p, nil
}

// Execution makes the execution of one input, not stored yet. Problems have pointers that begin with at.
func (p *Plan) Execution(input json.RawMessage, at string) (store.NewExecution, []flow.Problem) {
	wrong := func(code, format string, args ...any) (store.NewExecution, []flow.Problem) {
		return store.NewExecution{}, []flow.Problem{{Pointer: at, Code: code, Message: fmt.Sprintf(format, args...)}}
	}
	if len(input) > MaxInput {
		return wrong("too-large", "the input has %d bytes, the most is %d: store it elsewhere and pass where it is", len(input), MaxInput)
	}
	var value any
	if len(input) > 0 {
		var err error
		if value, err = flow.DecodeValue(input); err != nil {
			return wrong("json", "%s", err.Error())
		}
	}
	if problems := p.Version.Input.Check(value, at); len(problems) > 0 {
		return store.NewExecution{}, problems
	}
	if len(input) > protocol.MaxInline { // named by its hash from now on: as the engine writes it, so that a step that hands it on names the same
		var err error
		if input, err = flow.EncodeValue(value); err != nil {
			return wrong("json", "%s", err.Error())
		}
	}
	id := store.NewID()
	e := store.NewExecution{
		ID: id, Project: p.Head.Project, Flow: p.Head.ID, Version: p.Version.Number, Shard: int(id[15]) % p.shards, Pool: p.Version.Definition().Settings.Pool,
		Priority: p.priority, Trigger: p.Trigger, Client: p.client, Labels: p.labels, Input: input, Deadline: p.deadline, Paused: p.Head.PausedReason, Undoes: p.Version.Program.Undoes(), CreatedAt: p.now,
	}
	if problems := p.limit(&e, value, at); len(problems) > 0 {
		return store.NewExecution{}, problems
	}
	return e, nil
}
