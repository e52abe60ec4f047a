// Package definitions checks flow documents and keeps what starts need of them: compiled once per version, found in microseconds.
//
// What a flow's name and id stand for, and which of its versions is published, is believed for Believed (50 ms); whoever changes a flow answers
// only after that, so a start that comes after the answer sees the change through every gateway.
package definitions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Believed is how long a flow's head is believed without asking again.
const Believed = 50 * time.Millisecond

// Flows is what this package needs of the database.
type Flows interface {
	FlowByID(ctx context.Context, id protocol.ID) (store.Flow, error)
	FlowByName(ctx context.Context, project protocol.ID, name string) (store.Flow, error)
	VersionOf(ctx context.Context, flow protocol.ID, version int) (store.FlowVersion, error)
	HooksAt(ctx context.Context, path string) ([]store.Hook, error)
	CredentialTypes(ctx context.Context, project protocol.ID, namesOrIDs []string) (map[string]string, error)
}

// Types is the catalogue of nodes.
type Types interface {
	flow.Types
	Find(typ string, version int) (node.Type, bool)
}

// Version is a compiled version of a flow. It is shared and never changes.
type Version struct {
	Flow    protocol.ID
	Number  int
	Program *flow.Program
	Input   *InputSchema
	Hooks   []Hook
	// Schedules are what the version's trigger.schedule nodes say.
	Schedules []Schedule
	// Errors is what the version's trigger.error says; nil: it has none.
	Errors *ErrorTrigger
	// Responders are the nodes that answer a hook for the flow.
	Responders []string
}

// Definition is the document.
func (v *Version) Definition() *flow.Definition { return v.Program.Definition() }

// Definitions is safe for concurrent use.
type Definitions struct {
	db    Flows
	types Types
	lang  flow.Language
	now   func() time.Time

	flight singleflight.Group
	mu     sync.RWMutex
	heads  map[string]head
	hooks  map[string]hooksAt
	cache  map[versionKey]*Version
}

type head struct {
	flow store.Flow
	err  error
	at   time.Time
}

type versionKey struct {
	flow    protocol.ID
	version int
}

// Bounds of the caches; beyond them they are begun anew.
const (
	maxHeads    = 10_000
	maxVersions = 2_000
)

// New makes one.
func New(db Flows, types Types, lang flow.Language, now func() time.Time) *Definitions {
	return &Definitions{db: db, types: types, lang: lang, now: now, heads: map[string]head{}, hooks: map[string]hooksAt{}, cache: map[versionKey]*Version{}}
}

// Checked is a document without problems: as it is to be stored, with every typeVersion filled in.
type Checked struct {
	Definition *flow.Definition
	Document   json.RawMessage
	Hooks      []Hook
	Schedules  []Schedule
	Errors     *ErrorTrigger
}

// Check judges a document: every problem at once, sorted as the document is read. err is about us, not about the document.
func (d *Definitions) Check(ctx context.Context, doc []byte) (Checked, []flow.Problem, error) {
	def, problems := flow.Parse(doc)
	if len(problems) == 0 || len(def.Nodes) > 0 { // what could be read is judged too
		_, more := flow.Compile(def, flow.FlowView{Name: def.Name}, d.types, d.lang)
		problems = append(problems, novel(problems, more)...)
	}
	_, more := compileSchema(def.InputSchema)
	problems = append(problems, novel(problems, more)...)
	hooks, more := hooksOf(def)
	problems = append(problems, novel(problems, more)...)
	schedules, more := schedulesOf(def)
	problems = append(problems, novel(problems, more)...)
	ends, more := errorTriggerOf(def)
	problems = append(problems, novel(problems, more)...)
	more, err := d.checkCredentials(ctx, def)
	if err != nil {
		return Checked{}, nil, err
	}
	problems = append(problems, novel(problems, more)...)
	if len(problems) > 0 {
		return Checked{Definition: def}, problems, nil
	}
	stored, err := json.Marshal(def)
	if err != nil {
		return Checked{}, nil, fmt.Errorf("write the flow document: %w", err)
	}
	return Checked{Definition: def, Document: stored, Hooks: hooks, Schedules: schedules, Errors: ends}, nil, nil
}

// novel leaves out problems at places that have one already: a field that could not be read is empty, and missing it is no news.
func novel(known, more []flow.Problem) []flow.Problem {
	if len(known) == 0 {
		return more
	}
	places := make(map[string]bool, len(known))
	for _, p := range known {
		places[p.Pointer] = true
	}
	out := more[:0]
	for _, p := range more {
		if !places[p.Pointer] {
			out = append(out, p)
		}
	}
	return out
}

// Head finds a flow by its id or its name, as it was Believed ago or later.
func (d *Definitions) Head(ctx context.Context, idOrName string) (store.Flow, error) {
	now := d.now()
	d.mu.RLock()
	h, ok := d.heads[idOrName]
	d.mu.RUnlock()
	if ok && now.Sub(h.at) < Believed {
		return h.flow, h.err
	}
	for {
		v, err, _ := d.flight.Do(idOrName, func() (any, error) {
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return d.find(bounded, idOrName)
		})
		if err != nil {
			return store.Flow{}, err
		}
		if h = v.(head); now.Sub(h.at) < Believed { // else: somebody's slow question from before our time
			return h.flow, h.err
		}
	}
}

func (d *Definitions) find(ctx context.Context, idOrName string) (head, error) {
	h := head{at: d.now()} // before the question: what it tells is at least that new
	id, err := protocol.ParseID(idOrName)
	if err == nil {
		h.flow, h.err = d.db.FlowByID(ctx, id)
	} else {
		h.flow, h.err = d.db.FlowByName(ctx, protocol.ID{}, idOrName)
	}
	if h.err != nil && !errors.Is(h.err, store.ErrNotFound) {
		return h, h.err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.heads) >= maxHeads {
		clear(d.heads)
	}
	d.heads[idOrName] = h
	return h, nil
}

// Settle returns when no gateway believes anything older than now. Whoever has changed a flow calls it before answering.
func (d *Definitions) Settle(ctx context.Context) {
	d.mu.Lock()
	clear(d.heads)
	clear(d.hooks)
	d.mu.Unlock()
	t := time.NewTimer(Believed + 10*time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Version gives a compiled version of a flow.
func (d *Definitions) Version(ctx context.Context, f store.Flow, version int) (*Version, error) {
	key := versionKey{f.ID, version}
	d.mu.RLock()
	v := d.cache[key]
	d.mu.RUnlock()
	if v != nil {
		return v, nil
	}
	got, err, _ := d.flight.Do(fmt.Sprintf("%s/%d", f.ID, version), func() (any, error) {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return d.compile(bounded, f, version)
	})
	if err != nil {
		return nil, err
	}
	return got.(*Version), nil
}

// UnusableError says that a stored version can't be run by this build.
type UnusableError struct {
	Flow     string
	Version  int
	Problems []flow.Problem
}

func (e *UnusableError) Error() string {
	return fmt.Sprintf("version %d of the flow %q can't be run by this release of the platform (%d problems, the first: %s %s): save it again", e.Version, e.Flow, len(e.Problems), e.Problems[0].Pointer, e.Problems[0].Message)
}

func (d *Definitions) compile(ctx context.Context, f store.Flow, version int) (*Version, error) {
	stored, err := d.db.VersionOf(ctx, f.ID, version)
	if err != nil {
		return nil, err
	}
	def, problems := flow.Parse(stored.Document)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	p, problems := flow.Compile(def, flow.FlowView{ID: f.ID.String(), Name: def.Name, Version: version}, d.types, d.lang)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	schema, problems := compileSchema(def.InputSchema)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	hooks, problems := hooksOf(def)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	schedules, problems := schedulesOf(def)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	ends, problems := errorTriggerOf(def)
	if len(problems) > 0 {
		return nil, &UnusableError{f.Name, version, problems}
	}
	v := &Version{Flow: f.ID, Number: version, Program: p, Input: schema, Hooks: hooks, Schedules: schedules, Errors: ends, Responders: respondersOf(def)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cache) >= maxVersions {
		clear(d.cache)
	}
	d.cache[versionKey{f.ID, version}] = v
	return v, nil
}
