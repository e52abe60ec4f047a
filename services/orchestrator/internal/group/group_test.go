package group

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallsThatWaitGoTogetherAndGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		g := New(Config[int, int]{Max: 100, Parallel: 1, Window: time.Millisecond, Timeout: time.Minute,
			Run: func(_ context.Context, batch []int) ([]int, error) {
				sizes = append(sizes, len(batch))
				time.Sleep(10 * time.Millisecond)
				out := make([]int, len(batch))
				for i, q := range batch {
					out[i] = q * q
				}
				return out, nil
			}})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if i > 0 {
					time.Sleep(5 * time.Millisecond) // while the first batch runs
				}
				a, err := g.Do(t.Context(), i)
				if err != nil || a != i*i {
					t.Errorf("Do(%d) = %d, %v", i, a, err)
				}
			})
		}
		wg.Wait()
		if len(sizes) != 2 || sizes[0] != 1 || sizes[1] != 49 {
			t.Fatalf("batches of %v, want [1 49]", sizes)
		}
	})
}

func TestParallelAndMaxAreBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most, biggest atomic.Int64
		g := New(Config[[]int, int]{Max: 10, Parallel: 2, Window: time.Millisecond, Timeout: time.Minute,
			Weigh: func(q []int) int { return len(q) },
			Run: func(_ context.Context, batch [][]int) ([]int, error) {
				n := now.Add(1)
				most.Store(max(most.Load(), n))
				w := 0
				for _, q := range batch {
					w += len(q)
				}
				biggest.Store(max(biggest.Load(), int64(w)))
				time.Sleep(20 * time.Millisecond)
				now.Add(-1)
				return make([]int, len(batch)), nil
			}})
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				if _, err := g.Do(t.Context(), make([]int, 3)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 2 || biggest.Load() != 9 {
			t.Fatalf("%d at once and %d in a batch, want 2 and 9", most.Load(), biggest.Load())
		}
	})
}

func TestEagerFirstCallDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New(Config[int, int]{Max: 10, Parallel: 2, Window: time.Millisecond, Eager: true, Timeout: time.Minute,
			Run: func(_ context.Context, batch []int) ([]int, error) { return batch, nil }})
		begin := time.Now()
		if _, err := g.Do(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 0 {
			t.Fatalf("the first call took %v", took)
		}
		if _, err := g.Do(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != time.Millisecond {
			t.Fatalf("the second call, at once after it, took %v, want the window", took)
		}
	})
}

func TestFailureReachesEveryCallAndCloseAnswersAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		g := New(Config[int, int]{Max: 10, Parallel: 1, Window: time.Millisecond, Timeout: time.Minute,
			Run: func(context.Context, []int) ([]int, error) { time.Sleep(time.Second); return nil, boom }})
		var failed atomic.Int64
		for i := range 25 {
			go func() {
				if _, err := g.Do(t.Context(), i); errors.Is(err, boom) {
					failed.Add(1)
				}
			}()
		}
		synctest.Wait()
		g.Close()
		synctest.Wait()
		if failed.Load() != 25 {
			t.Fatalf("%d of 25 calls heard of the failure", failed.Load())
		}
		if _, err := g.Do(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Fatalf("after Close: %v", err)
		}
	})
}

func TestCallersThatLeftAreNotRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ran []int
		g := New(Config[int, int]{Max: 10, Parallel: 1, Window: time.Second, Timeout: time.Minute,
			Run: func(_ context.Context, batch []int) ([]int, error) { ran = append(ran, batch...); return batch, nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := g.Do(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := g.Do(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if len(ran) != 1 || ran[0] != 2 {
			t.Fatalf("ran %v, want [2]", ran)
		}
	})
}
