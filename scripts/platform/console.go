package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// console shows the parts of a run: what is being done, for how long, and what each took. On a terminal the current part
// counts its seconds on one line; in a log it says every ten seconds that it is still there.
type console struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	started  time.Time
	shown    bool // a line without its end is on the terminal
}

func newConsole(file *os.File) *console {
	info, err := file.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &console{out: file, terminal: terminal, started: time.Now()}
}

// part is one step of a run. Its detail is what it is doing at the moment.
type part struct {
	console *console
	name    string
	started time.Time

	mu     sync.Mutex
	detail string
	result string
}

// doing says what the part does now; it is shown beside the elapsed time.
func (p *part) doing(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detail = fmt.Sprintf(format, args...)
}

// done says in a few words what came of it; it is shown with the time that the part took.
func (p *part) done(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result = fmt.Sprintf(format, args...)
}

// say prints a line above the current one.
func (p *part) say(format string, args ...any) {
	p.console.line("   " + fmt.Sprintf(format, args...))
}

// part runs do and shows it under name.
func (c *console) part(name string, do func(*part) error) error {
	p := &part{console: c, name: name, started: time.Now()}
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { c.tick(p, stop) })
	err := do(p)
	close(stop)
	ticking.Wait()

	took := time.Since(p.started)
	if err != nil {
		c.line(fmt.Sprintf(" ✗ %-22s %6.1fs", name, took.Seconds()))
		return fmt.Errorf("%s: %w", name, err)
	}
	c.line(strings.TrimRight(fmt.Sprintf(" ✓ %-22s %6.1fs  %s", name, took.Seconds(), p.result), " "))
	return nil
}

// tick shows the running part until stop is closed.
func (c *console) tick(p *part, stop <-chan struct{}) {
	every := 10 * time.Second
	if c.terminal {
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

func (c *console) transient(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.terminal {
		fmt.Fprintf(c.out, "\r\033[K%s", text)
		c.shown = true
		return
	}
	fmt.Fprintln(c.out, text)
}

// line prints one whole line.
func (c *console) line(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown {
		fmt.Fprint(c.out, "\r\033[K")
		c.shown = false
	}
	fmt.Fprintln(c.out, text)
}

// passThrough is a writer for the output of a program that runs within a part.
func (c *console) passThrough() io.Writer { return (*consoleWriter)(c) }

type consoleWriter console

func (w *consoleWriter) Write(b []byte) (int, error) {
	c := (*console)(w)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown {
		fmt.Fprint(c.out, "\r\033[K")
		c.shown = false
	}
	return c.out.Write(b)
}
