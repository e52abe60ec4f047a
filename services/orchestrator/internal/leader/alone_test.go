package leader

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestAlone: without Consul it leads term after term, each raised in the database, and never two at once.
func TestAlone(t *testing.T) {
	t.Parallel()
	var raised atomic.Int64
	terms := make(chan *Term)
	goOn := make(chan struct{})
	var working atomic.Int64
	e, err := New(Options{Alone: true, Holder: "me", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: prometheus.NewRegistry(),
		RaiseTerm: func(context.Context, string) (int64, error) {
			if n := raised.Add(1); n > 1 {
				return n, nil
			}
			return 0, errors.New("the database is away")
		},
		Work: func(ctx context.Context, term *Term) {
			if working.Add(1) != 1 {
				t.Error("two terms at once")
			}
			defer working.Add(-1)
			terms <- term
			select {
			case <-goOn: // the work ends by itself
			case <-ctx.Done():
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	first := <-terms
	if first.Number != 2 || !first.Valid() || e.Leading() != first || e.Err() != nil {
		t.Errorf("%+v, leading %+v, %v", first, e.Leading(), e.Err())
	}
	goOn <- struct{}{}
	second := <-terms
	if second.Number != 3 || !second.Valid() || first.Valid() {
		t.Errorf("%+v; the first is valid: %v", second, first.Valid())
	}
	if kv, err := e.KV(ctx, "flow/"); err != nil || len(kv) != 0 {
		t.Errorf("%v %v", kv, err)
	}
	stop()
	<-ended
	if second.Valid() || e.Leading() != nil {
		t.Error("it still leads")
	}
}
