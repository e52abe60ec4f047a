package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// Progress tells a person how it goes on: a line a step with its time and size, and on a terminal a line that moves while something is packed.
type Progress struct {
	To       io.Writer // nil says nothing
	Terminal bool
	last     *time.Time // when the moving line was last written
}

// NewProgress writes to w.
func NewProgress(w io.Writer, terminal bool) Progress {
	return Progress{To: w, Terminal: terminal, last: new(time.Time)}
}

func (p Progress) say(format string, args ...any) {
	if p.To != nil {
		fmt.Fprintf(p.To, "   "+format+"\n", args...)
	}
}

// step runs one and says how long it took and how big its directory has become by it.
func (p Progress) step(name, dir string, run func() error) error {
	p.say("%s …", name)
	before, _ := sizeOf(dir)
	began := time.Now()
	if err := run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	after, err := sizeOf(dir)
	if err != nil {
		return err
	}
	p.done(name, after-before, began)
	return nil
}

func (p Progress) done(name string, size int64, began time.Time) {
	p.say("%s: %s, %s", name, megabytes(size), time.Since(began).Round(100*time.Millisecond))
}

// part moves the line on: every fifth of a second on a terminal, every five seconds in a log.
func (p Progress) part(name string, done, total int64, began time.Time) {
	if p.To == nil || p.last == nil {
		return
	}
	every := 5 * time.Second
	if p.Terminal {
		every = time.Second / 5
	}
	if now := time.Now(); now.Sub(later(*p.last, began)) < every {
		return
	} else {
		*p.last = now
	}
	line := fmt.Sprintf("   %s … %d%% of %s, %s", name, 100*done/max(total, 1), megabytes(total), time.Since(began).Round(time.Second))
	if p.Terminal {
		fmt.Fprintf(p.To, "\r%s\x1b[K\r", line)
	} else {
		fmt.Fprintln(p.To, line)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// sizeOf is the size of all files below a directory, 0 when there is none.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		return nil
	})
	return total, err
}
