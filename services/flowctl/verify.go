package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"flowplatform/services/flowctl/internal/verify"
)

type verifyCommand struct {
	Disruptive      bool          `help:"Also stop and kill the leading orchestrator, a worker and a gateway, one after the other, under a small load."`
	Only            []string      `help:"Look at these areas only: ${enum}." enum:"consul,nomad,security,hosts,platform,flows,drill" placeholder:"AREA"`
	Limit           time.Duration `help:"How long all of it may take." default:"15m"`
	Recovery        time.Duration `help:"How long the platform may take to be whole again after each blow of --disruptive." default:"90s"`
	Settle          time.Duration `help:"How long requests must be answered again before the next blow." default:"3s"`
	Rate            float64       `help:"Executions a second that --disruptive begins; 50 at the most." default:"5"`
	CertificateDays int           `help:"Certificates that end sooner are a warning." default:"14"`
	Certificate     []string      `help:"Look at the certificate in this file, too." placeholder:"FILE"`
}

func (v *verifyCommand) Help() string {
	return `Says whether a running cluster is what it should be, seen from outside. Consul and Nomad are found as by their own programs (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY; NOMAD_ADDR, NOMAD_TOKEN, NOMAD_CACERT, NOMAD_CLIENT_CERT, NOMAD_CLIENT_KEY), all of which "flowcluster exec" sets.
The exit status is 0 when nothing has failed; warnings, and what could not be asked here (skipped), don't change it.`
}

func (v *verifyCommand) Run(a *app) error {
	if v.Limit < 10*time.Second || v.Recovery < time.Second || v.Settle < time.Second {
		return fmt.Errorf("--limit is at least 10s, --recovery and --settle at least 1s")
	}
	if v.Rate <= 0 || v.Rate > 50 {
		return fmt.Errorf("--rate is %g: above 0, and 50 at the most", v.Rate)
	}
	if slices.Contains(v.Only, "drill") && !v.Disruptive {
		return errors.New("the drill stops and kills parts of the platform: say --disruptive, too")
	}
	api, err := a.api()
	if err != nil {
		return err
	}
	consul, err := verify.Consul(os.Getenv)
	if err != nil {
		return err
	}
	nomad, err := verify.Nomad(os.Getenv)
	if err != nil {
		return err
	}
	o := verify.Options{API: api, Consul: consul, Nomad: nomad, Only: v.Only, Disruptive: v.Disruptive, Limit: v.Limit, Recovery: v.Recovery, Settle: v.Settle, Rate: v.Rate, CertificateDays: v.CertificateDays, Certificates: v.Certificate}
	if a.json {
		o.Doing = func(what string) { fmt.Fprintln(a.errs, printable(what)) }
	} else {
		o.Row = func(r verify.Row) { a.verifyRow(r) }
		if v.Disruptive {
			o.Doing = func(what string) {
				if strings.HasPrefix(what, "drill") {
					fmt.Fprintln(a.errs, "…", printable(what))
				}
			}
		}
	}
	report := verify.Run(a.ctx, o)
	if a.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		a.verifySum(report)
	}
	if n := report.Count[verify.Failed]; n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(report.Rows))
	}
	return nil
}

// verifyRow prints a row when it is there: the table is its own progress, so its columns are as wide as they will need to be.
func (a *app) verifyRow(r verify.Row) {
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "%-8s  %-9s  %-50s  %6.1fs  %s\n", r.State, r.Area, printable(r.Check), r.Seconds, printable(r.Detail))
	w.Flush()
}

func (a *app) verifySum(r verify.Report) {
	fmt.Fprintf(a.out, "\n%s: %d ok, %d warnings, %d failed, %d skipped, in %.0f s\n", r.Server, r.Count[verify.OK], r.Count[verify.Warning], r.Count[verify.Failed], r.Count[verify.Skipped], r.Seconds)
	if len(r.Unproven) > 0 {
		fmt.Fprintf(a.out, "not looked at: %s\n", strings.Join(r.Unproven, ", "))
	}
}
