package flowtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// API calls the platform's API below /api/v1.
type API func(ctx context.Context, method, path string, in, out any) error

// Result is what became of a case.
type Result struct {
	File      string   `json:"file"`
	Case      string   `json:"case"`
	Passed    bool     `json:"passed"`
	Problems  []string `json:"problems,omitempty"`
	Execution string   `json:"executionId,omitempty"`
	Seconds   float64  `json:"seconds"`
}

// Run runs all cases of all files, so many at once, and gives the results in their order. told hears each as it comes, one at a time.
func Run(ctx context.Context, api API, files []*File, parallel int, told func(Result)) []Result {
	var all []func() Result
	for _, f := range files {
		for i := range f.Cases {
			all = append(all, func() Result { return f.run(ctx, api, &f.Cases[i]) })
		}
	}
	results := make([]Result, len(all))
	places := make(chan struct{}, max(parallel, 1))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, run := range all {
		places <- struct{}{}
		wg.Go(func() {
			results[i] = run()
			<-places
			mu.Lock()
			defer mu.Unlock()
			told(results[i])
		})
	}
	wg.Wait()
	return results
}

func (f *File) run(ctx context.Context, api API, c *Case) Result {
	begun := time.Now()
	r := Result{File: f.Path, Case: c.Name}
	got, err := f.execute(ctx, api, c)
	if got != nil {
		r.Execution = got.ID
	}
	if err != nil {
		r.Problems = []string{err.Error()}
	} else {
		r.Problems = c.Expect.check(got)
	}
	r.Passed, r.Seconds = len(r.Problems) == 0, time.Since(begun).Round(time.Millisecond).Seconds()
	return r
}

// execute saves the rewritten flow as a draft, which no trigger uses, starts it, waits for its end, and deletes it again.
func (f *File) execute(ctx context.Context, api API, c *Case) (*Got, error) {
	doc, err := pin(f.document, testName(f.head), c.Pins)
	if err != nil {
		return nil, err
	}
	var saved struct {
		ID     string `json:"id"`
		Latest int    `json:"latestVersion"`
	}
	if err := api(ctx, "POST", "/flows?draft=true", doc, &saved); err != nil {
		return nil, fmt.Errorf("the flow isn't valid: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = api(ctx, "DELETE", "/flows/"+saved.ID, nil, nil) // a test's flow that stays is named as one
	}()
	input := json.RawMessage(c.Input)
	if input == nil {
		input = json.RawMessage("null")
	}
	period, err := c.period()
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(period)
	got := &Got{}
	path := fmt.Sprintf("/flows/%s/executions?wait=%s", saved.ID, min(period, 30*time.Second))
	if err := api(ctx, "POST", path, map[string]any{"input": input, "version": saved.Latest}, got); err != nil {
		return nil, fmt.Errorf("start it: %w", err)
	}
	if err := f.follow(ctx, api, got, until, period); err != nil {
		return got, err
	}
	var steps struct {
		Items []GotStep `json:"items"`
	}
	if err := api(ctx, "GET", "/executions/"+url.PathEscape(got.ID)+"/steps", nil, &steps); err != nil {
		return got, err
	}
	got.Steps = steps.Items
	return got, nil
}

// follow asks until the execution is final; at the end of the time it is cancelled.
func (f *File) follow(ctx context.Context, api API, got *Got, until time.Time, period time.Duration) error {
	path := "/executions/" + url.PathEscape(got.ID)
	for pause := 20 * time.Millisecond; !isFinal(got.Status); pause = min(2*pause, 500*time.Millisecond) {
		if time.Now().After(until) {
			err := fmt.Errorf("it is %s after %s: pin steps that wait, or raise the case's timeout", got.Status, period)
			return errors.Join(err, api(ctx, "POST", path+"/cancel", nil, nil))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		id := got.ID
		*got = Got{}
		if err := api(ctx, "GET", path, nil, got); err != nil {
			got.ID = id
			return err
		}
	}
	return nil
}

func isFinal(status string) bool {
	for _, s := range finals {
		if s == status {
			return true
		}
	}
	return false
}

// testName is a name that no flow of people has.
func testName(head string) string {
	b := make([]byte, 6)
	rand.Read(b)
	if len(head) > 100 {
		head = strings.ToValidUTF8(head[:100], "")
	}
	return fmt.Sprintf("%s (flow test %s)", head, hex.EncodeToString(b))
}
