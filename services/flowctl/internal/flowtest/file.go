// Package flowtest is tests of flows: cases in a YAML file beside a flow's document, each with an input, outputs that stand in for steps, and what must come of it.
//
// A pinned step isn't run: the document is rewritten before it is saved, with a pure node of the same id in its place that gives the output, leaves by the port, or fails
// with the error. So a test needs nothing of the platform that isn't there for every flow, and runs on any; the flow that people use is not touched.
package flowtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Limits of a test file.
const (
	maxFile     = 4 << 20
	maxCases    = 1000
	maxTimeout  = time.Hour
	usualPeriod = 30 * time.Second
)

// Suffix of the files.
const Suffix = ".test.yaml"

// File is the tests of one flow.
type File struct {
	Path  string `json:"-" yaml:"-"`
	Flow  string `json:"flow" yaml:"flow"` // document, beside the file; default: of the same name
	Cases []Case `json:"cases" yaml:"cases"`

	document []byte
	head     string // name of the flow
}

// Case is one test.
type Case struct {
	Name    string         `json:"name" yaml:"name"`
	Input   Value          `json:"input" yaml:"input"`
	Pins    map[string]Pin `json:"pins" yaml:"pins"`
	Expect  Expect         `json:"expect" yaml:"expect"`
	Timeout string         `json:"timeout" yaml:"timeout"` // default 30s
}

// Pin is what stands in for a step: an output (null if nothing is said) and a port (main if nothing is said), or an error.
type Pin struct {
	Output Value  `json:"output" yaml:"output"`
	Port   string `json:"port" yaml:"port"`
	Error  *Error `json:"error" yaml:"error"`
}

// Error of a step or an execution. What is empty isn't compared.
type Error struct {
	Code    string `json:"code" yaml:"code"`
	Message string `json:"message" yaml:"message"`
	Node    string `json:"node" yaml:"node"`
}

// Expect is what must come of a case. What isn't said isn't compared, but for the status: it must be succeeded, or failed where an error is expected.
type Expect struct {
	Status   string          `json:"status" yaml:"status"`
	Output   Value           `json:"output" yaml:"output"`     // exactly
	Contains Value           `json:"contains" yaml:"contains"` // of objects only these fields, at any depth
	Error    *Error          `json:"error" yaml:"error"`
	Path     []string        `json:"path" yaml:"path"`         // these steps ran, in this order as far as it is the flow's, and no others
	Includes []string        `json:"includes" yaml:"includes"` // these ran
	Excludes []string        `json:"excludes" yaml:"excludes"` // these didn't
	Steps    map[string]Step `json:"steps" yaml:"steps"`
}

// Step is what must have come of a step (of its last round, in a container).
type Step struct {
	Status   string `json:"status" yaml:"status"`
	Port     string `json:"port" yaml:"port"`
	Output   Value  `json:"output" yaml:"output"`
	Contains Value  `json:"contains" yaml:"contains"`
	Error    *Error `json:"error" yaml:"error"`
}

// Value is any JSON; nil: not said, which is not the same as null.
type Value json.RawMessage

// UnmarshalJSON keeps the text.
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = append(Value{}, b...)
	return nil
}

// UnmarshalYAML takes whatever stands there: what it is, the second reading finds out.
func (v *Value) UnmarshalYAML(func(any) error) error { return nil }

// Find gives the test files that an argument names: itself, those beside a document, those in a directory.
func Find(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		files, err := filepath.Glob(filepath.Join(arg, "*"+Suffix))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("%s has no files that end in %s", arg, Suffix)
		}
		return files, err
	case strings.HasSuffix(arg, ".yaml"), strings.HasSuffix(arg, ".yml"):
		return []string{arg}, nil
	}
	beside := strings.TrimSuffix(arg, filepath.Ext(arg)) + Suffix
	if _, err := os.Stat(beside); err != nil {
		return nil, fmt.Errorf("%s has no tests beside it: %w", arg, err)
	}
	return []string{beside}, nil
}

// Load reads a test file and its flow's document.
func Load(path string) (*File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.Path = path
	if f.Flow == "" {
		f.Flow = strings.TrimSuffix(filepath.Base(path), Suffix) + ".json"
	}
	if f.document, err = os.ReadFile(filepath.Join(filepath.Dir(path), f.Flow)); err != nil {
		return nil, fmt.Errorf("%s: the flow's document: %w (flow: names it)", path, err)
	}
	var head struct{ Name string }
	if err := json.Unmarshal(f.document, &head); err != nil {
		return nil, fmt.Errorf("%s: %s is not JSON: %w", path, f.Flow, err)
	}
	f.head = head.Name
	return f, nil
}

// parse reads the text twice: strictly, for errors that show the line, and as JSON, which tells null from what isn't there and keeps numbers.
func parse(text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("the file is larger than %d MiB", maxFile>>20)
	}
	var shape File
	if err := yaml.UnmarshalWithOptions(text, &shape, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("it can't be read:\n%s", yaml.FormatError(err, false, true))
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	f := &File{}
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	return f, f.check()
}

var finals = []string{"succeeded", "failed", "cancelled", "timed_out"}

// check finds what can't be meant.
func (f *File) check() error {
	var errs []error
	if len(f.Cases) == 0 || len(f.Cases) > maxCases {
		errs = append(errs, fmt.Errorf("it has %d cases: it must be 1 to %d", len(f.Cases), maxCases))
	}
	seen := map[string]bool{}
	for i := range f.Cases {
		c := &f.Cases[i]
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("case %d (%s): %w", i+1, c.Name, fmt.Errorf(format, args...)))
		}
		if c.Name == "" || seen[c.Name] {
			wrong("each case needs a name of its own")
		}
		seen[c.Name] = true
		if d, err := c.period(); err != nil || d <= 0 || d > maxTimeout {
			wrong("timeout %q: it must be a duration like 30s, up to %s", c.Timeout, maxTimeout)
		}
		if s := c.Expect.Status; s != "" && !slices.Contains(finals, s) {
			wrong("expect.status %q: it must be one of %s", s, strings.Join(finals, ", "))
		}
		for id, p := range c.Pins {
			if p.Error != nil && (p.Output != nil || p.Port != "") {
				wrong("pins.%s: a step that fails has no output, and leaves by no other port: keep one of them", id)
			}
			if p.Error != nil && p.Error.Code == "" {
				wrong("pins.%s.error: it needs a code", id)
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Case) period() (time.Duration, error) {
	if c.Timeout == "" {
		return usualPeriod, nil
	}
	return time.ParseDuration(c.Timeout)
}
