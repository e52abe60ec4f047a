package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/protocol"
)

// Bounds of a report message: the first entry after a pause goes at once, those that come within reportEvery of it go together.
const (
	reportEvery = 2 * time.Millisecond
	reportBatch = 256
	reportBytes = 512 << 10
)

// outgoing is an entry on its way. Its bytes are made once: whatever is published again is the same [6].
type outgoing struct {
	t    *run
	seq  int
	made time.Time
	body []byte
	over atomic.Bool // its run is done or dropped: it needs no confirm
}

// reports publishes entries, coalesced by shard, until they are confirmed or their runs are over.
type reports struct {
	r   *Runner
	ctx context.Context
	wg  sync.WaitGroup

	mu     sync.Mutex
	shards map[int]*shard
}

// shard is one report queue, with a goroutine of its own: publishing may block.
type shard struct {
	r      *Runner
	number int
	wake   chan struct{}

	mu    sync.Mutex
	queue []*outgoing
	fails int // publishings in a row that weren't confirmed
	until time.Time
}

// add takes an entry. It never blocks.
func (p *reports) add(t *run, e *protocol.Entry) *outgoing {
	body, err := json.Marshal(e)
	if err != nil && e.Error != nil { // a failure's data was tried before; better without it than no report
		bare := *e.Error
		bare.Data = nil
		e.Error = &bare
		body, err = json.Marshal(e)
	}
	if err != nil {
		p.r.log.Error("a report can't be written as JSON: the run hangs until its session ends", "error", err, "execution", t.text)
	}
	o := &outgoing{t: t, seq: e.Seq, made: time.Now(), body: body}
	p.r.metrics.entries.WithLabelValues(string(e.Kind)).Inc()
	s := p.shard(t.shard)
	s.mu.Lock()
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	signal(s.wake)
	return o
}

func (p *reports) shard(n int) *shard {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shards[n]
	if s == nil {
		s = &shard{r: p.r, number: n, wake: make(chan struct{}, 1)}
		p.shards[n] = s
		p.wg.Go(func() { s.run(p.ctx) })
	}
	return s
}

func (s *shard) run(ctx context.Context) {
	p := pace{every: reportEvery}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		hold := time.Until(s.until)
		s.mu.Unlock()
		if hold > 0 && !rest(ctx, hold) {
			return
		}
		if !p.wait(ctx) {
			return
		}
		for {
			batch, body := s.take()
			if len(batch) == 0 {
				break
			}
			s.r.metrics.messages.Inc()
			s.r.opts.Publisher.Report(ctx, s.number, body, func(err error) { s.settled(batch, err) })
			if p.last = time.Now(); s.failing() {
				break
			}
		}
	}
}

func (s *shard) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 && len(s.queue) > 0 {
		signal(s.wake)
	}
	return s.fails > 0
}

// take makes the next message.
func (s *shard) take() ([]*outgoing, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []*outgoing
	size, n := 64, 0
	for _, o := range s.queue {
		if len(batch) > 0 && (len(batch) == reportBatch || size+len(o.body) > reportBytes) {
			break
		}
		n++
		if o.over.Load() || o.body == nil {
			continue
		}
		batch = append(batch, o)
		size += len(o.body) + 1
	}
	clear(s.queue[:n]) // the array lives on, and would keep the runs
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	if len(batch) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	b.Grow(size)
	b.WriteString(`{"v":` + strconv.Itoa(protocol.SchemaVersion) + `,"shard":` + strconv.Itoa(s.number) + `,"entries":[`)
	for i, o := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(o.body)
	}
	b.WriteString(`]}`)
	return batch, b.Bytes()
}

// settled takes the broker's word on a message: confirmed, or to be published again. Unknown and refused are the same here: a second copy of an
// entry is old news for the collector.
func (s *shard) settled(batch []*outgoing, err error) {
	m := s.r.metrics
	if err == nil {
		s.mu.Lock()
		s.fails = 0
		s.mu.Unlock()
		now := time.Now()
		for _, o := range batch {
			m.confirmLatency.Observe(now.Sub(o.made).Seconds())
			o.t.tell(news{kind: newsConfirmed, seq: o.seq}, false)
		}
		return
	}
	s.mu.Lock()
	if s.fails%50 == 0 {
		s.r.log.Warn("reports aren't confirmed: the same entries are published again until they are", "error", err, "shard", s.number, "entries", len(batch))
	}
	s.fails++
	s.until = time.Now().Add(jitter(min(25*time.Millisecond<<min(s.fails, 6), time.Second)))
	s.queue = append(batch[:len(batch):len(batch)], s.queue...)
	s.mu.Unlock()
	m.republished.Add(float64(len(batch)))
	signal(s.wake)
}
