package chaos

import (
	"maps"
	"slices"
)

// evidence is what the witnesses have seen.
type evidence struct {
	steps    []string // those that call the target, in each execution
	requests []request
	records  map[string]record
	visits   map[stepKey][]Visit
	done     map[stepKey][]confirmation
}

// Counts are the totals of a drill.
type Counts struct {
	Requests   int               `json:"requests"`
	Accepted   int               `json:"accepted"`
	Errors     map[string]int    `json:"errors"`     // requests that were not accepted as far as the client knows, by what it saw
	FirstOf    map[string]string `json:"firstOf"`    // the first error of each kind, in full
	ErrorRate  float64           `json:"errorRate"`  // their share
	Again      int               `json:"again"`      // requests that the client's HTTP library sent once more, on another connection
	Unheard    int               `json:"unheard"`    // executions that began though their client was not told so
	Final      int               `json:"final"`      // of all that were accepted or unheard
	Succeeded  int               `json:"succeeded"`  //
	Otherwise  map[string]int    `json:"otherwise"`  // final, but not succeeded: by state
	Lost       int               `json:"lost"`       // accepted, and not there or not final
	Unfinished int               `json:"unfinished"` // unheard, and not final
	Calls      int               `json:"calls"`      // that the outside world got
	Repeated   int               `json:"repeated"`   // calls of a step beyond its first that came before its report was confirmed: in flight as its worker died
	Doubled    int               `json:"doubled"`    // calls of a step after its report was confirmed
	Missing    int               `json:"missing"`    // steps of executions that succeeded that were never called, or are not recorded exactly once
	Examples   []string          `json:"examples,omitempty"`
}

const maxExamples = 10

func (c *Counts) example(what string) {
	if len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, what)
	}
}

// Broken lists the promises that were not kept.
func (c Counts) Broken() []string {
	var out []string
	say := func(n int, what string) {
		if n > 0 {
			out = append(out, plural(n, what))
		}
	}
	say(c.Lost, "accepted executions lost")
	say(c.Unfinished, "executions begun and not final")
	say(c.Doubled, "calls of confirmed steps")
	say(c.Missing, "steps of succeeded executions not called, or not recorded once")
	for _, state := range slices.Sorted(maps.Keys(c.Otherwise)) {
		say(c.Otherwise[state], "executions ended as "+state+", and their flow can't fail by itself")
	}
	if c.Accepted == 0 {
		out = append(out, "nothing was accepted: no load, no proof")
	}
	return out
}

// judge counts.
func judge(e evidence) Counts {
	c := Counts{Errors: map[string]int{}, FirstOf: map[string]string{}, Otherwise: map[string]int{}, Requests: len(e.requests)}
	told := map[string]bool{}
	for _, r := range e.requests {
		if r.Again > 0 {
			c.Again++
		}
		if r.Fail != "" {
			if c.Errors[r.Fail]++; c.Errors[r.Fail] == 1 {
				c.FirstOf[r.Fail] = r.Why
			}
			continue
		}
		c.Accepted++
		told[r.ID] = true
		if rec, there := e.records[r.ID]; !there || !rec.final() {
			c.Lost++
			c.example("lost: " + r.ID + " " + rec.State)
		}
	}
	if c.Requests > 0 {
		c.ErrorRate = float64(c.Requests-c.Accepted) / float64(c.Requests)
	}
	for id, rec := range e.records {
		if !told[id] {
			c.Unheard++
			if !rec.final() {
				c.Unfinished++
				c.example("not final: " + id + " " + rec.State)
			}
		}
		if !rec.final() {
			continue
		}
		c.Final++
		if rec.State == "succeeded" {
			c.Succeeded++
		} else {
			c.Otherwise[rec.State]++
			c.example(rec.State + ": " + id)
		}
		for _, node := range e.steps {
			c.step(e, stepKey{id, node}, rec.State == "succeeded")
		}
	}
	return c
}

// step counts the calls of one step. One that comes in a later attempt than the one whose report says that it was done was made although that was
// known; so was one of the same attempt that comes after that report was stored. A call of an earlier attempt may come late: it was on its way.
func (c *Counts) step(e evidence, k stepKey, succeeded bool) {
	visits, done := e.visits[k], e.done[k]
	c.Calls += len(visits)
	if succeeded && (len(visits) == 0 || len(done) != 1) {
		c.Missing++
		c.example(k.Execution + " " + k.Node + ": " + plural(len(visits), "calls") + ", " + plural(len(done), "records"))
	}
	for i, v := range visits {
		after := slices.ContainsFunc(done, func(d confirmation) bool {
			return v.Attempt > d.Attempt || v.Attempt == d.Attempt && v.At.After(d.Stored)
		})
		switch {
		case after:
			c.Doubled++
			c.example(k.Execution + " " + k.Node + ": called again after it was confirmed")
		case i > 0:
			c.Repeated++
		}
	}
}
