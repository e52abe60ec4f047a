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
	publish protocol.TaskPublisher
	follow  *follow
	log     *slog.Logger
	todo    chan protocol.Outcome
	end     chan struct{}
	once    sync.Once
	done    chan struct{}
}

func newWakes(st protocol.Store, publish protocol.TaskPublisher, f *follow, log *slog.Logger) *wakes {
	w := &wakes{store: st, publish: publish, follow: f, log: log, todo: make(chan protocol.Outcome, 2000), end: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// take takes an outcome. It never waits.
func (w *wakes) take(out protocol.Outcome) {
	w.follow.told(out.Told)
	w.follow.news(out.News)
	if len(out.HandOut)+len(out.Mail) == 0 {
		return
	}
	select {
	case w.todo <- out:
	default:
		w.log.Warn("too much waits to be handed out here: the leader does it", "executions", len(out.HandOut)+len(out.Mail))
	}
}

func (w *wakes) run() {
	defer close(w.done)
	for {
		select {
		case out := <-w.todo:
			w.do(out)
		case <-w.end:
			for {
				select {
				case out := <-w.todo:
					w.do(out)
				default:
					return
				}
			}
		}
	}
}

func (w *wakes) do(out protocol.Outcome) {
	for n := len(w.todo); n > 0; n-- { // what came meanwhile goes along
		more := <-w.todo
		out.HandOut = append(out.HandOut, more.HandOut...)
		out.Mail = append(out.Mail, more.Mail...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if len(out.Mail) > 0 {
		var after protocol.Outcome
		err := w.store.Txn(ctx, "post", func(tx protocol.Tx) (err error) {
			after, err = protocol.Post(ctx, tx, out.Mail)
			return err
		})
		if err != nil {
			w.log.Warn("what ended executions left could not be acted on: the leader does it", "executions", len(out.Mail), "error", err)
		} else {
			out.HandOut = append(out.HandOut, after.HandOut...)
			after.HandOut = nil
			w.take(after)
		}
	}
	if _, err := protocol.HandOut(ctx, w.store, w.publish, out.HandOut); err != nil {
		w.log.Warn("tasks could not be handed out: the leader does it", "executions", len(out.HandOut), "error", err)
	}
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
