// Package poll is the long poll of remote workers: requests that stay until a queue holds a task for them.
//
// Who waits is woken by the live event of a new task, one request for one event; who found something wakes the next, since there may be more. Beside that one of a queue's
// requests looks now and then, since events may be lost and leases end without one: without Redis every half second, else every two. So what waits costs a look for a queue, not for a request.
package poll

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How often a queue is looked at without an event: by itself, and as a net beside events.
const (
	lookEvery = 500 * time.Millisecond
	netEvery  = 2 * time.Second
)

// MaxWaiters bounds the requests that wait at once in this process.
const MaxWaiters = 10_000

// Registry of those who wait. Safe for concurrent use.
type Registry struct {
	live atomic.Bool

	mu     sync.Mutex
	queues map[string][]*Waiter
	n      int

	once sync.Once
	end  chan struct{}
	done chan struct{}
}

// Waiter is one request that waits.
type Waiter struct {
	r     *Registry
	queue string
	look  chan struct{}
}

// NewRegistry makes one that works until Stop.
func NewRegistry() *Registry {
	r := &Registry{queues: map[string][]*Waiter{}, end: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

// Add registers a request; call Close in the end. false: too many wait already.
func (r *Registry) Add(queue string) (*Waiter, bool) {
	w := &Waiter{r: r, queue: queue, look: make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n >= MaxWaiters {
		return nil, false
	}
	r.n++
	r.queues[queue] = append(r.queues[queue], w)
	return w, true
}

// Look says when to look. Ended says that nobody should wait any longer.
func (w *Waiter) Look() <-chan struct{} { return w.look }

// Ended is closed when the process stops.
func (w *Waiter) Ended() <-chan struct{} { return w.r.end }

// Close takes the request out. A look that it was asked for and did not do goes to another.
func (w *Waiter) Close() {
	r := w.r
	r.mu.Lock()
	list := slices.DeleteFunc(r.queues[w.queue], func(o *Waiter) bool { return o == w })
	r.queues[w.queue] = list
	if len(list) == 0 {
		delete(r.queues, w.queue)
	}
	r.n--
	r.mu.Unlock()
	select {
	case <-w.look:
		r.Wake(w.queue)
	default:
	}
}

// Wake lets one of those look who wait for the queue: the one that was woken the longest time ago.
func (r *Registry) Wake(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.queues[queue]
	for i, w := range list {
		select {
		case w.look <- struct{}{}:
			copy(list[i:], list[i+1:])
			list[len(list)-1] = w
			return
		default: // it is about to look already
		}
	}
}

// Live tells whether events come.
func (r *Registry) Live(live bool) { r.live.Store(live) }

// Len is how many requests wait.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// Stop ends all waiting: requests answer with what they have.
func (r *Registry) Stop() {
	r.once.Do(func() { close(r.end) })
	<-r.done
}

func (r *Registry) run() {
	defer close(r.done)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-r.end:
			return
		case now := <-tick.C:
			if r.live.Load() && now.Sub(last) < netEvery {
				continue
			}
			last = now
			r.mu.Lock()
			names := make([]string, 0, len(r.queues))
			for name := range r.queues {
				names = append(names, name)
			}
			r.mu.Unlock()
			for _, name := range names {
				r.Wake(name)
			}
		}
	}
}
