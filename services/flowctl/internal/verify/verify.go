// Package verify looks at a running cluster from outside and says whether it is what it should be: that its servers have a quorum, that every job and
// check is well, that nobody gets in without a token or a certificate, that a flow of each kind runs, and, if it may disturb, that the parts that are
// stopped and killed under load are replaced and nothing is lost.
//
// It knows nothing of how the cluster was made: it speaks to Consul, Nomad and the front door as any operator's tool does, and believes what it has
// tried more than what it is told. Each check gives one row; a row says what was seen, so that a table can be kept as a protocol.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/client"
)

// State is how a check came out.
type State string

// The states of a row. Skipped is what could not be asked here, with the reason; it is no failure, and no proof.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Row is one check.
type Row struct {
	Area    string  `json:"area"`
	Check   string  `json:"check"`
	State   State   `json:"state"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// Report is all of them.
type Report struct {
	At       time.Time     `json:"at"`
	Server   string        `json:"server"`
	Seconds  float64       `json:"seconds"`
	Count    map[State]int `json:"count"`
	Rows     []Row         `json:"rows"`
	Unproven []string      `json:"areasLeftOut,omitempty"` // by --only, or because they disturb
}

// Areas are what can be looked at, in this order; the last one disturbs.
func Areas() []string {
	return []string{"consul", "nomad", "security", "hosts", "platform", "flows", "drill"}
}

// Options say what to look at.
type Options struct {
	API             *client.Client
	Consul, Nomad   *Endpoint
	Only            []string      // areas; empty: all but the drill
	Disruptive      bool          // the drill too
	Limit           time.Duration // for everything
	Recovery        time.Duration // how long the platform may take to be whole again after each blow of the drill
	Settle          time.Duration // how long the load must be untroubled before the next blow
	Rate            float64       // executions a second that the drill begins
	CertificateDays int           // fewer days than these are a warning
	Certificates    []string      // files with certificates that are looked at, too
	Row             func(Row)     // gets each row when it is there
	Doing           func(string)  // gets what is being done now
}

const (
	maxDetail = 400
	// checkLimit is how long one check may take, where it doesn't say otherwise.
	checkLimit = 30 * time.Second
	// cleanLimit is for taking away what the flows have left, also when the time is up.
	cleanLimit = 30 * time.Second
)

// finding is what a check says.
type finding struct {
	State  State
	Detail string
}

func ok(format string, args ...any) finding { return finding{OK, fmt.Sprintf(format, args...)} }
func warning(format string, args ...any) finding {
	return finding{Warning, fmt.Sprintf(format, args...)}
}
func failed(format string, args ...any) finding { return finding{Failed, fmt.Sprintf(format, args...)} }
func skipped(format string, args ...any) finding {
	return finding{Skipped, fmt.Sprintf(format, args...)}
}

// run is one verification.
type run struct {
	o      Options
	report Report
	ground ground
}

// Run does all the checks. It ends early only when the context does; what wasn't done by then is in the report, as failed.
func Run(ctx context.Context, o Options) Report {
	begun := time.Now()
	r := &run{o: o, report: Report{At: begun.UTC(), Server: o.API.Server, Count: map[State]int{OK: 0, Warning: 0, Failed: 0, Skipped: 0}}}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, fmt.Errorf("the time is up: all of it may take %s (--limit)", o.Limit))
	defer cancel()
	r.ground.look(ctx, o)
	for _, area := range Areas() {
		if !r.wants(area) {
			r.report.Unproven = append(r.report.Unproven, area)
			continue
		}
		switch area {
		case "consul":
			r.consul(ctx)
		case "nomad":
			r.nomad(ctx)
		case "security":
			r.security(ctx)
		case "hosts":
			r.hosts(ctx)
		case "platform":
			r.platform(ctx)
		case "flows":
			r.flows(ctx)
		case "drill":
			r.drill(ctx)
		}
	}
	r.report.Seconds = time.Since(begun).Seconds()
	return r.report
}

func (r *run) wants(area string) bool {
	if area == "drill" && !r.o.Disruptive {
		return false
	}
	return len(r.o.Only) == 0 || slices.Contains(r.o.Only, area)
}

// check does one and keeps its row.
func (r *run) check(ctx context.Context, area, name string, do func(context.Context) finding) State {
	return r.bounded(ctx, checkLimit, area, name, do)
}

func (r *run) bounded(ctx context.Context, limit time.Duration, area, name string, do func(context.Context) finding) State {
	begun := time.Now()
	var f finding
	if ctx.Err() != nil {
		f = failed("not done: %v", context.Cause(ctx))
	} else {
		r.doing("%s: %s", area, name)
		bounded, cancel := context.WithTimeout(ctx, limit)
		f = do(bounded)
		if f.State == Failed && ctx.Err() != nil {
			f.Detail = fmt.Sprintf("%v; %s", context.Cause(ctx), f.Detail)
		}
		cancel()
	}
	return r.row(area, name, begun, f)
}

func (r *run) row(area, name string, begun time.Time, f finding) State {
	row := Row{Area: area, Check: name, State: f.State, Detail: cut(strings.Join(strings.Fields(f.Detail), " ")), Seconds: time.Since(begun).Seconds()}
	r.report.Rows = append(r.report.Rows, row)
	r.report.Count[f.State]++
	if r.o.Row != nil {
		r.o.Row(row)
	}
	return f.State
}

func (r *run) doing(format string, args ...any) {
	if r.o.Doing != nil {
		r.o.Doing(fmt.Sprintf(format, args...))
	}
}

// cut bounds what a server may put into a row.
func cut(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + " …"
}

// worst gives the finding that weighs most, with the details of all that are as bad; of none: the last.
func worst(all ...finding) finding {
	weight := map[State]int{Skipped: 0, OK: 1, Warning: 2, Failed: 3}
	top := finding{State: Skipped}
	for _, f := range all {
		if weight[f.State] > weight[top.State] {
			top.State = f.State
		}
	}
	var details []string
	for _, f := range all {
		if f.State == top.State {
			details = append(details, f.Detail)
		}
	}
	top.Detail = strings.Join(details, "; ")
	return top
}

// until asks every so often until the answer is nil or the context ends; then it gives the last answer.
func until(ctx context.Context, every time.Duration, ask func() error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
				return fmt.Errorf("no answer in time: %w", err)
			}
			return err
		case <-ticker.C:
		}
	}
}
