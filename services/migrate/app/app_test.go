package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// lines is a log that tells when a text appears in it.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	want string
	seen chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.want != "" && strings.Contains(l.text.String(), l.want) {
		close(l.seen)
		l.want = ""
	}
	return len(p), nil
}

func TestWaitsForTheServer(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	if _, err := server.Exec("postgres", "CREATE DATABASE flow"); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	out := &lines{want: "PostgreSQL", seen: make(chan struct{})}
	done := make(chan error, 1)
	o := Options{DatabaseURL: server.URL("postgres", "flow")}
	go func() { done <- Run(t.Context(), o, slog.New(slog.NewTextHandler(out, nil))) }()
	select {
	case <-out.seen: // it says for what it waits
	case err := <-done:
		t.Fatalf("ended without a server: %v", err)
	}
	server.Start(t)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Options{URL: server.URL("flow_worker", "flow"), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.SchemaReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"00003_executions.sql", "schema is ready"} {
		if !strings.Contains(out.text.String(), want) {
			t.Errorf("its log doesn't say %q:\n%s", want, out.text.String())
		}
	}
}

func TestRefusedMigrationEnds(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	for _, q := range []string{"CREATE ROLE stranger LOGIN", "CREATE DATABASE flow"} {
		if _, err := server.Exec("postgres", q); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := Run(ctx, Options{DatabaseURL: server.URL("stranger", "flow")}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, store.ErrMigration) {
		t.Fatalf("a role that may not migrate: %v, want ErrMigration", err)
	}
}
