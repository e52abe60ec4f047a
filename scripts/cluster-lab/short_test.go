package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/lab"
	"flowplatform/scripts/internal/spec"
)

// TestMain is also the program in the namespace of the one outside, as main is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == scanCommand {
		os.Exit(scanMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// The short form of make cluster-lab: three hosts, of which one is the server and has the data. The first apply is killed on the way, and finished by the
// next.
func TestAClusterOnThreeHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster of three hosts takes minutes")
	}
	if err := lab.Able(t.Context()); err != nil {
		t.Skip(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlay(root, t.TempDir(), console.New(os.Stdout))
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		p.report.print(os.Stdout)
		if t.Failed() {
			t.Logf("the end of what terraform said:\n%s", tail(p.log.text(), 4000))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if err := p.short(ctx); err != nil {
		t.Fatal(err)
	}
}

// short is what the test does.
func (p *play) short(ctx context.Context) error {
	if err := p.makeBundle(ctx); err != nil {
		return err
	}
	if err := p.makeHosts(ctx, map[string][]string{
		"d1": {spec.Server, spec.Data}, "w1": {spec.Worker, spec.FrontDoor}, "w2": {spec.Worker, spec.FrontDoor},
	}, 3072); err != nil {
		return err
	}
	p.watch = watch()
	if err := p.phase("Interrupted apply", func(*console.Part) error {
		if err := p.configure(ctx, "lab", p.hosts); err != nil {
			return err
		}
		return p.killApplies(ctx, points[1:2])
	}); err != nil {
		return err
	}
	if err := p.phase("Apply after it", func(*console.Part) error { return p.tf.Apply(ctx) }); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		p.verify, p.nothingToChange, p.scanListening,
		func(ctx context.Context) error { return p.killUnderLoad(ctx, workerDies, 10*time.Second) },
		p.searchSecrets, p.destroy,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}
