package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// secretsOf collects every secret of the cluster: of each file of keys the values or the lines of the private key, and what Nomad keeps for the jobs.
func (p *play) secretsOf(ctx context.Context) ([]string, error) {
	var secrets []string
	keys := filepath.Join(p.operator, "keys")
	err := filepath.WalkDir(keys, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(path, "-key.pem"):
			secrets = append(secrets, keyLines(content)...)
		case strings.HasSuffix(path, ".json"):
			found, err := values(content)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			secrets = append(secrets, found...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	listed, err := p.inside(ctx, "nomad", "var", "list", "-out", "json")
	if err != nil {
		return nil, err
	}
	var variables []struct{ Path string }
	if err := json.Unmarshal([]byte(listed), &variables); err != nil {
		return nil, fmt.Errorf("nomad var list: %w", err)
	}
	for _, v := range variables {
		said, err := p.inside(ctx, "nomad", "var", "get", "-out", "json", v.Path)
		if err != nil {
			return nil, err
		}
		var variable struct{ Items map[string]string }
		if err := json.Unmarshal([]byte(said), &variable); err != nil {
			return nil, fmt.Errorf("nomad var get %s: %w", v.Path, err)
		}
		for key, value := range variable.Items {
			switch {
			case isPublic(key):
			case strings.Contains(value, "PRIVATE KEY"):
				secrets = append(secrets, keyLines([]byte(value))...)
			default:
				secrets = append(secrets, value)
			}
		}
	}
	slices.Sort(secrets)
	secrets = slices.Compact(secrets)
	// What is short is no secret, and would be found anywhere.
	return slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 12 }), nil
}

// isPublic says of the names in files of keys and in variables whose values are known to everybody.
func isPublic(name string) bool {
	return slices.Contains([]string{"server", "ca_file", "email", "made", "networks", "certificate", "user", "username"}, name)
}

// values are the strings of a JSON document, but for those under public names.
func values(content []byte) ([]string, error) {
	var document any
	if err := json.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	var found []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for name, e := range v {
				if !isPublic(name) {
					walk(e)
				}
			}
		}
	}
	walk(document)
	return found, nil
}

// keyLines are the lines of a private key that are its own: the first of base64 says only which kind it is.
func keyLines(pem []byte) []string {
	var lines []string
	for line := range strings.Lines(string(pem)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	if len(lines) > 1 {
		return lines[1:]
	}
	return lines
}

// searchFiles looks for secrets in every file below directories, and returns what was found where, without saying it.
func searchFiles(secrets []string, dirs ...string) (hits []string, size int64, err error) {
	for _, dir := range dirs {
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			size += int64(len(content))
			hits = append(hits, searchIn(content, secrets, path)...)
			return nil
		})
		if err != nil {
			return hits, size, err
		}
	}
	return hits, size, nil
}

func searchIn(content []byte, secrets []string, where string) (hits []string) {
	for i, s := range secrets {
		if at := bytes.Index(content, []byte(s)); at >= 0 {
			line := content[bytes.LastIndexByte(content[:at], '\n')+1 : at]
			hits = append(hits, fmt.Sprintf("secret %d of %d (%d characters) in %s, after %q", i+1, len(secrets), len(s), where, lastWords(line)))
		}
	}
	return hits
}

func lastWords(line []byte) string {
	if len(line) > 60 {
		line = line[len(line)-60:]
	}
	return string(line)
}

// watcher remembers every command line on this machine while the play goes on, those of all hosts too: they are namespaces of its kernel.
type watcher struct {
	mu    sync.Mutex
	lines map[string]bool
	done  chan struct{}
	ended sync.WaitGroup
	once  sync.Once
}

func watch() *watcher {
	w := &watcher{lines: map[string]bool{}, done: make(chan struct{})}
	w.ended.Go(func() {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			w.look()
			select {
			case <-w.done:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *watcher) look() {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil || len(content) == 0 {
			continue
		}
		w.mu.Lock()
		w.lines[string(content)] = true
		w.mu.Unlock()
	}
}

func (w *watcher) stop() {
	w.once.Do(func() { close(w.done) })
	w.ended.Wait()
}

// seen are all command lines so far.
func (w *watcher) seen() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all bytes.Buffer
	for line := range w.lines {
		all.WriteString(line)
		all.WriteByte('\n')
	}
	return all.Bytes()
}
