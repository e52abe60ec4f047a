package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// phase is one part of the play.
type phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`
}

// kill is what the death of a host cost.
type kill struct {
	Host string `json:"host"`
	What string `json:"what"`

	Requests  int     `json:"requests"`  // starts of executions, while the load went on
	Again     int     `json:"again"`     // of them asked again, at the other front door or after a moment
	Failed    int     `json:"failed"`    // of them never accepted
	GapMax    float64 `json:"gapMaxS"`   // the longest time from one accepted request to the next
	Accepted  int     `json:"accepted"`  // executions
	Lost      int     `json:"lost"`      // of them not succeeded in the end
	Repeated  int     `json:"repeated"`  // steps whose call came more than once at the server outside, with the same Idempotency-Key
	Settled   float64 `json:"settledS"`  // from the kill until the last execution that was accepted before it had ended
	SlowestS  float64 `json:"slowestS"`  // the longest execution
	Elected   float64 `json:"electedS"`  // until Nomad's servers had a leader again; 0: not asked
	Recovered float64 `json:"recovered"` // from the host's start until the cluster was whole
}

// change is what it cost to do something to a cluster that runs.
type change struct {
	What     string  `json:"what"`
	Seconds  float64 `json:"seconds"` // of the command or commands
	Requests int     `json:"requests"`
	Again    int     `json:"again"`
	Failed   int     `json:"failed"`
	GapMax   float64 `json:"gapMaxS"`
	Accepted int     `json:"accepted"`
	Lost     int     `json:"lost"`
	Repeated int     `json:"repeated"`
}

// report is what a run has shown.
type report struct {
	Phases     []phase            `json:"phases"`
	Kills      []kill             `json:"kills"`
	Changes    []change           `json:"changes,omitempty"`
	Leaderless map[string]float64 `json:"leaderlessS,omitempty"` // the longest time without an answer of a leader during an upgrade, by program
	Ports      int                `json:"portsTried"`
	Open       int                `json:"portsOpen"` // all of them front doors
	Secrets    int                `json:"secretsSearched"`
	Searched   int64              `json:"bytesSearched"`
}

func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nphase\tseconds\t")
	total := 0.0
	for _, p := range r.Phases {
		mark := ""
		if !p.OK {
			mark = "failed"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\n", p.Name, p.Seconds, mark)
		total += p.Seconds
	}
	fmt.Fprintf(w, "all\t%.1f\t\n", total)
	for _, k := range r.Kills {
		fmt.Fprintf(w, "\n%s\t%s\t\n", k.What, k.Host)
		fmt.Fprintf(w, "requests, asked again, failed\t%d, %d, %d\t\n", k.Requests, k.Again, k.Failed)
		fmt.Fprintf(w, "longest time without an accepted one\t%.2f s\t\n", k.GapMax)
		fmt.Fprintf(w, "executions, lost, calls repeated\t%d, %d, %d\t\n", k.Accepted, k.Lost, k.Repeated)
		fmt.Fprintf(w, "those before the kill had all ended after\t%.1f s\t\n", k.Settled)
		if k.Elected > 0 {
			fmt.Fprintf(w, "Nomad had a leader again after\t%.1f s\t\n", k.Elected)
		}
		fmt.Fprintf(w, "started again, whole after\t%.1f s\t\n", k.Recovered)
	}
	if len(r.Changes) > 0 {
		fmt.Fprintln(w, "\nday two\tseconds\trequests\tagain\tfailed\tlongest gap\texecutions\tlost\trepeated\t")
	}
	for _, c := range r.Changes {
		fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%d\t%.2f s\t%d\t%d\t%d\t\n", c.What, c.Seconds, c.Requests, c.Again, c.Failed, c.GapMax, c.Accepted, c.Lost, c.Repeated)
	}
	for _, program := range sorted(r.Leaderless) {
		fmt.Fprintf(w, "upgrade: %s answered as a leader after at most\t%.1f s\t\n", program, r.Leaderless[program])
	}
	if r.Ports > 0 {
		fmt.Fprintf(w, "\nports tried from outside, open\t%d, %d\t\n", r.Ports, r.Open)
	}
	if r.Secrets > 0 {
		fmt.Fprintf(w, "secrets, MB searched, found\t%d, %d, 0\t\n", r.Secrets, r.Searched>>20)
	}
	w.Flush()
}

func (r *report) write(file string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(content, '\n'), 0o644)
}

// sorted are the keys of a map, the servers' first: names of one kind stand together.
func sorted[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), strings.Compare)
}
