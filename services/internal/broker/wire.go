package broker

import (
	"net"
	"sync"
	"time"
)

// wire writes what amqp091 gives it from a goroutine of its own: frames that come while a write is under way go together in the next one. amqp091
// flushes after every message, which costs a system call here and a wake-up in the server for each. Writers wait only when a whole
// megabyte is pending; a write that takes longer than writeTimeout ends the connection, since amqp091 ignores contexts and a server under an alarm, or
// behind a black hole, just doesn't read.
type wire struct {
	net.Conn

	mu      sync.Mutex
	room    sync.Cond
	work    sync.Cond
	pending []byte
	err     error
}

const maxPending = 1 << 20

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	w.room.L, w.work.L = &w.mu, &w.mu
	go w.run()
	return w
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > maxPending && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	w.pending = append(w.pending, b...)
	w.work.Signal()
	return len(b), nil
}

func (w *wire) run() {
	var spare []byte
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.pending) == 0 && w.err == nil {
			w.work.Wait()
		}
		if w.err != nil {
			return
		}
		batch := w.pending
		w.pending = spare[:0]
		w.mu.Unlock()
		err := w.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = w.Conn.Write(batch)
		}
		w.mu.Lock()
		if spare = batch; cap(spare) > 4*maxPending {
			spare = nil
		}
		w.room.Broadcast()
		if err != nil {
			w.fail(err)
			w.Conn.Close()
			return
		}
	}
}

// fail is called with the lock held.
func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
	w.work.Broadcast()
}

// Close ends the connection and the goroutine. amqp091 closes after the server has answered its farewell, so nothing is pending then.
func (w *wire) Close() error {
	w.mu.Lock()
	w.fail(net.ErrClosed)
	w.mu.Unlock()
	return w.Conn.Close()
}
