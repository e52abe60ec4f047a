// Package console shows what a long run does: its parts, for how long, and what each took.
package console

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Console shows the parts of a run: what is being done, for how long, and what each took. On a terminal the current part
// counts its seconds on one line; in a log it says every ten seconds that it is still there.
type Console struct {
	mu       sync.Mutex
	out      io.Writer
	Terminal bool      // what it writes to is looked at by a person
	Started  time.Time // of the run
	shown    bool      // a line without its end is on the terminal

	parent *Console // of a named one
	name   string
}

// New shows on a file, usually os.Stdout.
func New(file *os.File) *Console {
	info, err := file.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &Console{out: file, Terminal: terminal, Started: time.Now()}
}

// Named is the same console for one of several that work side by side: its lines begin with a name.
func (c *Console) Named(name string) *Console {
	return &Console{Terminal: false, Started: c.Started, parent: c, name: name}
}

// Part is one step of a run. Its detail is what it is doing at the moment.
type Part struct {
	console *Console
	name    string
	started time.Time

	mu     sync.Mutex
	detail string
	result string
}

// Doing says what the part does now; it is shown beside the elapsed time.
func (p *Part) Doing(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detail = fmt.Sprintf(format, args...)
}

// Done says in a few words what came of it; it is shown with the time that the part took.
func (p *Part) Done(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result = fmt.Sprintf(format, args...)
}

// Say prints a line above the current one.
func (p *Part) Say(format string, args ...any) {
	p.console.Line("   " + fmt.Sprintf(format, args...))
}

// Part runs do and shows it under name.
func (c *Console) Part(name string, do func(*Part) error) error {
	p := &Part{console: c, name: name, started: time.Now()}
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { c.tick(p, stop) })
	err := do(p)
	close(stop)
	ticking.Wait()

	took := time.Since(p.started)
	if err != nil {
		c.Line(fmt.Sprintf(" ✗ %-22s %6.1fs", name, took.Seconds()))
		return fmt.Errorf("%s: %w", name, err)
	}
	c.Line(strings.TrimRight(fmt.Sprintf(" ✓ %-22s %6.1fs  %s", name, took.Seconds(), p.result), " "))
	return nil
}

// tick shows the running part until stop is closed.
func (c *Console) tick(p *Part, stop <-chan struct{}) {
	every := 10 * time.Second
	if c.Terminal {
		every = time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			p.mu.Lock()
			text := fmt.Sprintf(" … %-22s %6.0fs  %s", p.name, time.Since(p.started).Seconds(), p.detail)
			p.mu.Unlock()
			c.transient(strings.TrimRight(text, " "))
		}
	}
}

func (c *Console) transient(text string) {
	if c.parent != nil {
		c.parent.Line(" " + c.name + text)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Terminal {
		fmt.Fprintf(c.out, "\r\033[K%s", text)
		c.shown = true
		return
	}
	fmt.Fprintln(c.out, text)
}

// Line prints one whole line.
func (c *Console) Line(text string) {
	if c.parent != nil {
		c.parent.Line(" " + c.name + text)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown {
		fmt.Fprint(c.out, "\r\033[K")
		c.shown = false
	}
	fmt.Fprintln(c.out, text)
}

// PassThrough is a writer for the output of a program that runs within a part.
func (c *Console) PassThrough() io.Writer { return (*writer)(c) }

type writer Console

func (w *writer) Write(b []byte) (int, error) {
	c := (*Console)(w)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown {
		fmt.Fprint(c.out, "\r\033[K")
		c.shown = false
	}
	return c.out.Write(b)
}
