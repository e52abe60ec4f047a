package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/bundle"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/spec"
)

// keptBundles is how many releases the operator's directory and every host keep: the current one, and the one before to go back to.
const keptBundles = 2

// initialize takes what is wanted and makes what is needed for it, without reaching any host.
func initialize(ctx context.Context, c *console.Console, dir string, args []string) error {
	flags := flag.NewFlagSet("init", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("bundle", "", "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return usageError("init takes --bundle FILE, and cluster.json on standard input")
	}
	cluster, err := readCluster(os.Stdin)
	if err != nil {
		return err
	}
	o, err := openDir(dir)
	if err != nil {
		return err
	}
	unlock, err := o.lock("init", func() { c.Line("waiting for another flowcluster init") })
	if err != nil {
		return err
	}
	defer unlock()
	if before, err := open(dir); err == nil {
		if before.Cluster.Name != cluster.Name {
			return fmt.Errorf("%s is the directory of cluster %s, not of %s: each cluster has its own", o.Dir, before.Cluster.Name, cluster.Name)
		}
		if *file == "" {
			cluster.Bundle = either(cluster.Bundle == "", before.Cluster.Bundle, cluster.Bundle)
		}
	}
	if *file == "" && cluster.Bundle == "" {
		return usageError("which release? --bundle FILE, made by make bundle")
	}
	o.Cluster = cluster
	if err := c.Part("Release", func(p *console.Part) error { return o.takeBundle(ctx, p, *file) }); err != nil {
		return err
	}
	return c.Part("Keys", func(p *console.Part) error {
		// Hosts first: whatever happens from here on, they can be removed.
		for _, h := range o.Cluster.Hosts {
			if err := o.remember(h); err != nil {
				return err
			}
		}
		if err := o.writeCluster(); err != nil {
			return err
		}
		if err := o.makeKeys(); err != nil {
			return err
		}
		p.Done("in %s: keep a copy of it in a safe place", o.Dir)
		return nil
	})
}

// writeCluster writes down what is wanted.
func (o *operator) writeCluster() error {
	b, err := json.MarshalIndent(o.Cluster, "", "  ")
	if err != nil {
		return fmt.Errorf("write the cluster: %w", err)
	}
	return replaceFile(o.path("cluster.json"), append(b, '\n'))
}

// readCluster reads what is wanted. A name that isn't known is refused: it is a mistake in writing.
func readCluster(in io.Reader) (spec.Cluster, error) {
	var c spec.Cluster
	decoder := json.NewDecoder(io.LimitReader(in, 4<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return c, fmt.Errorf("cluster.json on standard input: %w", err)
	}
	if err := c.Check(); err != nil {
		return c, fmt.Errorf("cluster.json on standard input:\n%w", err)
	}
	return c, nil
}

// takeBundle unpacks a release into the directory, by its sum, and makes it the current one.
func (o *operator) takeBundle(ctx context.Context, p *console.Part, file string) error {
	if file != "" {
		sum, err := archive.Sum(file)
		if err != nil {
			return fmt.Errorf("the bundle: %w", err)
		}
		if o.Cluster.Bundle != "" && o.Cluster.Bundle != sum {
			return fmt.Errorf("%s has the sum %s, cluster.json wants %s", file, sum, o.Cluster.Bundle)
		}
		o.Cluster.Bundle = sum
		if err := keepCopy(file, o.bundle()+".tar.gz"); err != nil {
			return err
		}
	}
	m, err := bundle.Read(o.bundle())
	did := "unchanged"
	if err != nil {
		p.Doing("unpacking")
		if err := os.RemoveAll(o.bundle()); err != nil {
			return fmt.Errorf("unpack the bundle: %w", err)
		}
		if m, err = bundle.Open(ctx, o.bundle()+".tar.gz", o.bundle()); err != nil {
			return err
		}
		did = "new"
	}
	next := o.path("bundle", fmt.Sprintf(".current-%d", os.Getpid()))
	if err := errors.Join(os.Symlink(o.Cluster.Bundle, next), os.Rename(next, o.path("bundle", "current"))); err != nil {
		return fmt.Errorf("make the release the current one: %w", err)
	}
	p.Done("%s, %s", m.Version, did)
	return o.pruneBundles()
}

// keepCopy keeps the file as it is sent to hosts: a second name for it where that can be, else a copy.
func keepCopy(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	next := fmt.Sprintf("%s.%d", to, os.Getpid())
	defer os.Remove(next)
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	_, err = io.Copy(out, in) // the kernel shares the blocks where the file system can
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	if err := os.Rename(next, to); err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	return nil
}

// pruneBundles removes the oldest releases beyond those that are kept.
func (o *operator) pruneBundles() error {
	files, _ := filepath.Glob(o.path("bundle", "*.tar.gz"))
	type release struct {
		sum  string
		info fs.FileInfo
	}
	var old []release
	for _, f := range files {
		sum := strings.TrimSuffix(filepath.Base(f), ".tar.gz")
		if info, err := os.Stat(f); err == nil && sum != o.Cluster.Bundle {
			old = append(old, release{sum, info})
		}
	}
	for len(old) >= keptBundles {
		oldest := 0
		for i := range old {
			if old[i].info.ModTime().Before(old[oldest].info.ModTime()) {
				oldest = i
			}
		}
		path := o.path("bundle", old[oldest].sum)
		if err := errors.Join(os.RemoveAll(path), os.Remove(path+".tar.gz")); err != nil {
			return fmt.Errorf("remove an old release: %w", err)
		}
		old = append(old[:oldest], old[oldest+1:]...)
	}
	return nil
}

// makeKeys makes everything that isn't there yet.
func (o *operator) makeKeys() error {
	unlock, err := o.Keys.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := o.Keys.Authority(); err != nil {
		return err
	}
	if _, err := o.Keys.Gossip(); err != nil {
		return err
	}
	if _, err := o.Keys.Tokens(o.tokenNames()...); err != nil {
		return err
	}
	if _, err := o.Keys.Operator(); err != nil {
		return err
	}
	for _, h := range o.Cluster.Hosts {
		if _, err := o.Keys.Host(h); err != nil {
			return err
		}
	}
	return nil
}

// tokenNames are all tokens that the cluster's hosts and its operator have.
func (o *operator) tokenNames() []string {
	names := []string{access.ConsulManagement, access.NomadManagement}
	for _, h := range o.Cluster.Hosts {
		names = append(names, access.ConsulAgent(h.Name), access.ConsulNomad(h.Name))
	}
	return names
}
