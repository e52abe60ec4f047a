package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
)

// wakes does what a committed transaction of this gateway leaves to be done for executions: hand out what it woke, and act on the letters that it left. Beside the path
// and bounded: the leader does within seconds what is lost here.
type wakes struct {
	store   protocol.Store
	handOut func([]protocol.ID) // never waits
	admit   func([]string)      // never waits
	follow  *follow
	log     *slog.Logger
	mail    chan []protocol.ID
	end     chan struct{}
	once    sync.Once
	done    chan struct{}
}

func newWakes(st protocol.Store, handOut func([]protocol.ID), admit func([]string), f *follow, log *slog.Logger) *wakes {
	w := &wakes{store: st, handOut: handOut, admit: admit, follow: f, log: log, mail: make(chan []protocol.ID, 2000), end: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// take takes an outcome. It never waits.
func (w *wakes) take(out protocol.Outcome) {
	w.handOut(out.HandOut)
	w.admit(out.Freed)
	w.follow.told(out.Told)
	w.follow.news(out.News)
	if len(out.Mail) == 0 {
		return
	}
	select {
	case w.mail <- out.Mail:
	default:
		w.log.Warn("too many letters wait to be acted on here: the leader does it", "executions", len(out.Mail))
	}
}

func (w *wakes) run() {
	defer close(w.done)
	for {
		select {
		case ids := <-w.mail:
			w.post(ids)
		case <-w.end:
			for {
				select {
				case ids := <-w.mail:
					w.post(ids)
				default:
					return
				}
			}
		}
	}
}

// post acts on the letters that ended executions have left.
func (w *wakes) post(ids []protocol.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out protocol.Outcome
	err := w.store.Txn(ctx, "post", func(tx protocol.Tx) (err error) {
		out, err = protocol.Post(ctx, tx, ids)
		return err
	})
	if err != nil {
		w.log.Warn("what ended executions left could not be acted on: the leader does it", "executions", len(ids), "error", err)
		return
	}
	w.take(out)
}

// stop does what waits, for as long as ctx allows.
func (w *wakes) stop(ctx context.Context) error {
	w.once.Do(func() { close(w.end) })
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	return nil
}
