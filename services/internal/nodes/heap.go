package nodes

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"time"
)

// errHeap is the cause of contexts that watchHeap ended.
var errHeap = errors.New("the heap grew too much")

const heapLook = 5 * time.Millisecond

// watchHeap gives a context that ends when the process's live heap has grown by more than limit since the call. Go can't tell whose memory it is: the bound holds for all
// that run at once, and one may end for what another took; so it is a retryable failure. Work that ends within 5 ms pays nothing but a timer.
func watchHeap(parent context.Context, limit uint64) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &heapWatch{limit: limit, cancel: cancel, ctx: ctx}
	w.base = heapBytes()
	w.mark = w.base
	w.timer = time.AfterFunc(time.Hour, w.look) // look needs the timer
	w.timer.Reset(heapLook)
	return ctx, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

type heapWatch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  uint64
	base   uint64 // when it began
	mark   uint64 // after the last collection that it asked for
}

func (w *heapWatch) look() {
	if w.ctx.Err() != nil {
		return
	}
	if heapBytes() > w.mark+w.limit { // objects and garbage
		runtime.GC()
		if w.mark = heapBytes(); w.mark > w.base+w.limit {
			w.cancel(errHeap)
			return
		}
	}
	w.timer.Reset(heapLook)
}

func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
