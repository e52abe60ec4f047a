package lifecycle

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStackUndoesInReverseAndJoinsErrors(t *testing.T) {
	t.Parallel()
	var s Stack
	var order []string
	for _, name := range []string{"a", "b", "c"} {
		s.Push(name, func(context.Context) error {
			order = append(order, name)
			if name == "b" {
				return errors.New("broken")
			}
			return nil
		})
	}
	err := s.Close(context.Background())
	if got := strings.Join(order, ""); got != "cba" {
		t.Errorf("order %s", got)
	}
	if err == nil || !strings.Contains(err.Error(), "stop b: broken") {
		t.Errorf("error %v", err)
	}
	if err := s.Close(context.Background()); err != nil || len(order) != 3 {
		t.Errorf("the second Close did something: %v %v", err, order)
	}
}

func TestStackLeavesBehindWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Stack
		closed := false
		release := make(chan struct{})
		s.Push("first", func(context.Context) error { closed = true; return nil })
		s.PushBounded("hangs", time.Second, func(context.Context) error { <-release; return nil })
		err := s.Close(context.Background())
		if !closed || err == nil || !strings.Contains(err.Error(), "stop hangs") {
			t.Errorf("closed %v, error %v", closed, err)
		}
		close(release)
	})
}

func TestWaitForKeepsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := WaitFor(t.Context(), slog.New(slog.NewTextHandler(io.Discard, nil)), "it", func(context.Context) error {
			if n++; n < 20 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || n != 20 {
			t.Errorf("%d tries, %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err = WaitFor(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), "it", func(context.Context) error { return errors.New("away") })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "away") {
			t.Errorf("%v", err)
		}
	})
}
