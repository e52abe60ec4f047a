package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/flowctl/internal/dev"
	"flowplatform/services/flowctl/internal/flowtest"
)

type flowTest struct {
	Files    []string `arg:"" help:"Test files (*.test.yaml), documents with one beside them, or directories of them." placeholder:"FILE"`
	Parallel int      `help:"Cases at once." default:"8"`
	Dir      string   `help:"Where the platform of the tests keeps its data, to start sooner the next time; default: a temporary directory." placeholder:"DIR"`
	JUnit    string   `name:"junit" help:"Write the results to FILE as JUnit XML, too." placeholder:"FILE"`
}

func (f *flowTest) Run(a *app) error {
	if f.Parallel < 1 || f.Parallel > 100 {
		return fmt.Errorf("--parallel is %d: it must be from 1 to 100", f.Parallel)
	}
	files, err := f.load()
	if err != nil {
		return err
	}
	c, stop, err := f.platform(a)
	if err != nil {
		return err
	}
	call := func(ctx context.Context, method, path string, in, out any) error {
		_, err := c.Do(ctx, method, path, in, out)
		return err
	}
	results := flowtest.Run(a.ctx, call, files, f.Parallel, func(r flowtest.Result) {
		if !a.json {
			fmt.Fprint(a.out, r.Text())
		}
	})
	err = errors.Join(f.report(a, results), stop())
	if failed := flowtest.Failed(results); failed > 0 {
		return errors.Join(fmt.Errorf("%d of %d flow tests failed", failed, len(results)), err)
	}
	return err
}

// load reads all files before anything is started.
func (f *flowTest) load() ([]*flowtest.File, error) {
	var files []*flowtest.File
	var errs []error
	for _, arg := range f.Files {
		paths, err := flowtest.Find(arg)
		errs = append(errs, err)
		for _, path := range paths {
			file, err := flowtest.Load(path)
			files, errs = append(files, file), append(errs, err)
		}
	}
	return files, errors.Join(errs...)
}

// platform is the server that was named (--server, FLOW_SERVER), else one of its own that ends with the tests.
func (f *flowTest) platform(a *app) (*client.Client, func() error, error) {
	if a.server != "" {
		c, err := a.api()
		return c, func() error { return nil }, err
	}
	dir, remove := f.Dir, func() error { return nil }
	if dir == "" {
		made, err := os.MkdirTemp("", "flow-test-")
		if err != nil {
			return nil, nil, err
		}
		if err := os.Chmod(made, 0o711); err != nil { // PostgreSQL may run as another user; what is secret has rights of its own
			return nil, nil, err
		}
		dir, remove = made, func() error { return os.RemoveAll(made) }
	}
	p, err := dev.Start(a.ctx, dev.Options{Dir: dir})
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), time.Minute)
		defer cancel()
		p.Hurry() // nothing of a test is worth waiting for
		return errors.Join(p.Stop(ctx), remove())
	}
	c, err := client.Anonymous(p.Server(), p.Login.Token)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return c, stop, nil
}

func (f *flowTest) report(a *app, results []flowtest.Result) error {
	if a.json {
		if err := a.printJSON(results); err != nil {
			return err
		}
	}
	if f.JUnit == "" {
		return nil
	}
	out, err := os.Create(f.JUnit)
	if err != nil {
		return err
	}
	return errors.Join(flowtest.JUnit(out, results), out.Close())
}
