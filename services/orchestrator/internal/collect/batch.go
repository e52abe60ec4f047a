package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"flowplatform/services/internal/protocol"
)

const (
	// batchEntries is where a batch is full. Its last message may carry it beyond.
	batchEntries = 512
	// batchWindow is how long a batch waits for company.
	batchWindow = 2 * time.Millisecond
	// idle is the pause after which the first message goes at once. At 100 a second most go at once, and under load the commit before gathers more
	// than any window.
	idle = batchWindow
)

// batch is what one transaction takes: whole messages, in the order of the queue.
type batch struct {
	entries  []protocol.Entry
	dead     []protocol.DeadLetter
	messages int
	last     Delivery
	newer    bool // the message behind this batch has a newer schema: hand back after it
	began    time.Time
}

func (b *batch) reset() {
	clear(b.entries)
	clear(b.dead)
	*b = batch{entries: b.entries[:0], dead: b.dead[:0]}
}

// gatherer turns deliveries into batches. One goroutine; the batch in hand grows while the one before it commits.
type gatherer struct {
	queue      string
	deliveries <-chan Delivery
	out        chan *batch // unbuffered: taken when the one before is done
	free       chan *batch
	lastTaken  time.Time
}

func newGatherer(queue string, deliveries <-chan Delivery) *gatherer {
	g := &gatherer{queue: queue, deliveries: deliveries, out: make(chan *batch), free: make(chan *batch, 2)}
	g.free <- &batch{}
	g.free <- &batch{}
	return g
}

// run gathers until ctx ends or the deliveries do; then it closes out. What is in hand is dropped: it is not acknowledged.
func (g *gatherer) run(ctx context.Context) {
	defer close(g.out)
	for {
		var b *batch
		select {
		case b = <-g.free:
			b.reset()
		case <-ctx.Done():
			return
		}
		if !g.fill(ctx, b) {
			return
		}
		g.lastTaken = time.Now()
		if b.newer {
			return
		}
	}
}

// fill gathers one batch and hands it over. It returns false when nothing more will come.
func (g *gatherer) fill(ctx context.Context, b *batch) bool {
	select {
	case d, ok := <-g.deliveries:
		if !ok {
			return false
		}
		b.began = time.Now()
		b.add(g.queue, d)
	case <-ctx.Done():
		return false
	}
	ripe := b.began.Sub(g.lastTaken) > idle || b.full()
	window := time.NewTimer(batchWindow)
	defer window.Stop()
	for {
		out, in := g.out, g.deliveries
		if !ripe {
			out = nil
		}
		if b.full() {
			in = nil
		}
		select {
		case out <- b:
			return true
		case d, ok := <-in:
			if !ok {
				return false
			}
			b.add(g.queue, d)
			ripe = ripe || b.full()
		case <-window.C:
			ripe = true
		case <-ctx.Done():
			return false
		}
	}
}

func (b *batch) full() bool {
	return b.newer || len(b.entries)+len(b.dead) >= batchEntries
}

// add decodes a message into the batch.
func (b *batch) add(queue string, d Delivery) {
	report, err := decode(d.Body)
	if errors.Is(err, errNewer) {
		b.newer = true // this message stays unacknowledged
		return
	}
	b.messages++
	b.last = d
	if err != nil {
		b.dead = append(b.dead, protocol.DeadLetter{ID: protocol.LetterID(d.At, d.ID), Kind: "report", Reason: "unparseable", Detail: err.Error(), Origin: queue, Body: d.Body, Count: 1})
		return
	}
	for i := range report.Entries {
		e := &report.Entries[i]
		if err := check(e); err != nil {
			body, merr := json.Marshal(e)
			if merr != nil {
				body = d.Body
			}
			b.dead = append(b.dead, protocol.DeadLetter{ID: protocol.LetterID(d.At, d.ID, strconv.Itoa(i)), Kind: "report", Reason: "unparseable", Detail: err.Error(), Origin: queue, Execution: e.Execution, Body: body, Count: 1})
			continue
		}
		b.entries = append(b.entries, *e)
	}
}

var errNewer = errors.New("the report has a newer schema than this build knows: finish the release of the orchestrators")

// decode reads a report of this build's schema or an older one.
func decode(body []byte) (protocol.Report, error) {
	var r protocol.Report
	err := json.Unmarshal(body, &r)
	if err != nil {
		var version struct {
			V int `json:"v"`
		}
		if json.Unmarshal(body, &version) == nil && version.V > protocol.SchemaVersion {
			return r, errNewer
		}
		return r, fmt.Errorf("the message is not a report: %w", err)
	}
	if r.V > protocol.SchemaVersion {
		return r, errNewer
	}
	if r.V < 1 {
		return r, fmt.Errorf("the message is not a report: it has no schema version (v)")
	}
	return r, nil
}

// check refuses what no worker of ours sends and the rules could not take.
func check(e *protocol.Entry) error {
	if e.Kind == protocol.EntryRecover {
		if e.Session.IsZero() {
			return errors.New("a recover without a session")
		}
		return nil
	}
	switch e.Kind {
	case protocol.EntryStep, protocol.EntrySuspend, protocol.EntryYield:
	case protocol.EntryFinal:
		if !e.State.Final() {
			return fmt.Errorf("a final entry with the state %q", e.State)
		}
	default:
		return fmt.Errorf("an entry of the unknown kind %q", e.Kind)
	}
	switch {
	case e.Execution.IsZero():
		return errors.New("an entry without an execution")
	case e.Attempt < 1 || e.Attempt > math.MaxInt32:
		return fmt.Errorf("an entry with the attempt %d", e.Attempt)
	case e.Seq < 1 || e.Seq > math.MaxInt32 || e.Base < 0 || e.Base >= e.Seq:
		return fmt.Errorf("an entry with seq %d on base %d", e.Seq, e.Base)
	case e.Session.IsZero() != (e.Run == 0):
		return errors.New("an entry with a session and no run, or a run and no session")
	}
	return nil
}
