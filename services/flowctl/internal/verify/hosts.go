package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	clockWarn, clockFail = time.Second, 30 * time.Second
	diskWarn, diskFail   = 15.0, 5.0 // per cent that are free
	// clockLooks and clockPause: a host's figures are taken once a second, and the youngest of several answers says best what its clock shows.
	clockLooks, clockPause = 6, 220 * time.Millisecond
)

func (r *run) hosts(ctx context.Context) {
	r.check(ctx, "hosts", "versions alike", r.versions)
	r.check(ctx, "hosts", "certificates", r.certificates)
	if r.ground.nomadAway != nil {
		r.check(ctx, "hosts", "clocks, disks", func(context.Context) finding { return away(r.o.Nomad, r.ground.nomadUnset, r.ground.nomadAway) })
		return
	}
	stats := map[string]hostStats{}
	offsets := map[string]time.Duration{}
	r.bounded(ctx, 2*checkLimit, "hosts", "clocks", func(ctx context.Context) finding {
		for _, n := range r.ground.nodes {
			for range clockLooks {
				var s hostStats
				asked := time.Now()
				if err := r.o.Nomad.get(ctx, "/v1/client/stats?node_id="+n.ID, &s); err != nil {
					return failed("%s: %v", n.Name, err)
				}
				// The figures were taken before now, and perhaps a second before: the largest offset is nearest.
				at := time.Unix(0, s.Timestamp).Sub(asked.Add(time.Since(asked) / 2))
				if old, seen := offsets[n.Name]; !seen || at > old {
					offsets[n.Name] = at
				}
				stats[n.Name] = s
				if !pause(ctx, clockPause) {
					break
				}
			}
		}
		return judgeClocks(offsets)
	})
	r.check(ctx, "hosts", "disks", func(context.Context) finding { return judgeDisks(stats) })
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// hostStats is what Nomad's client says of its host.
type hostStats struct {
	Timestamp int64 // nanoseconds, by the host's clock
	DiskStats []struct {
		Device, Mountpoint             string
		Size, Used, Available          uint64
		UsedPercent, InodesUsedPercent float64
	}
}

// judgeClocks compares each host's clock with the others': this machine's own may be wrong.
func judgeClocks(offsets map[string]time.Duration) finding {
	if len(offsets) == 0 {
		return skipped("no host to ask")
	}
	names := slices.Sorted(maps.Keys(offsets))
	first, last := names[0], names[0]
	for _, n := range names {
		if offsets[n] < offsets[first] {
			first = n
		}
		if offsets[n] > offsets[last] {
			last = n
		}
	}
	apart := offsets[last] - offsets[first]
	text := fmt.Sprintf("%d hosts, at most %s apart (seen to about 0.3 s)", len(offsets), apart.Round(10*time.Millisecond))
	if len(offsets) == 1 {
		apart = max(offsets[first], -offsets[first])
		text = fmt.Sprintf("one host; %s from this machine", apart.Round(10*time.Millisecond))
	}
	switch {
	case apart >= clockFail:
		return failed("%s: %s and %s; certificates and tokens will not hold", text, first, last)
	case apart >= clockWarn:
		return warning("%s: %s and %s; is the time synchronised?", text, first, last)
	}
	return ok("%s", text)
}

func judgeDisks(stats map[string]hostStats) finding {
	if len(stats) == 0 {
		return skipped("no host has said")
	}
	var notes []finding
	least, where, disks := 101.0, "", 0
	for _, host := range slices.Sorted(maps.Keys(stats)) {
		seen := map[string]bool{}
		for _, d := range stats[host].DiskStats {
			if d.Size < 64<<20 || seen[d.Device] || d.Used+d.Available == 0 { // what the system mounts for itself, and what it mounts again somewhere else
				continue
			}
			seen[d.Device] = true
			disks++
			free := 100 * float64(d.Available) / float64(d.Used+d.Available) // as df says it: what is kept for root doesn't count
			if d.InodesUsedPercent > 0 {
				free = min(free, 100-d.InodesUsedPercent)
			}
			text := fmt.Sprintf("%s %s has %.0f %% free", host, d.Mountpoint, free)
			if free < least {
				least, where = free, text
			}
			switch {
			case free < diskFail:
				notes = append(notes, failed("%s", text))
			case free < diskWarn:
				notes = append(notes, warning("%s", text))
			}
		}
	}
	if len(notes) == 0 {
		if disks == 0 {
			return skipped("no host has said")
		}
		notes = append(notes, ok("%d, of the hosts that run tasks, space and files; least: %s", disks, where))
	}
	return worst(notes...)
}

// versions collects what each part says of its own.
func (r *run) versions(ctx context.Context) finding {
	seen := map[string]map[string]int{} // program: version: how many
	add := func(program, version string) {
		if seen[program] == nil {
			seen[program] = map[string]int{}
		}
		seen[program][version]++
	}
	for _, m := range r.ground.members {
		add("consul", strings.TrimRight(m.Tags["build"], ":"))
	}
	for _, n := range r.ground.nodes {
		add("nomad", n.Version)
	}
	if r.ground.nomadAway == nil {
		var servers struct {
			Members []struct{ Tags map[string]string }
		}
		if err := r.o.Nomad.get(ctx, "/v1/agent/members", &servers); err != nil {
			return failed("%v", err)
		}
		for _, s := range servers.Members {
			add("nomad", s.Tags["build"])
		}
	}
	if r.ground.consulAway == nil {
		for _, name := range []string{"gateway", "orchestrator", "worker"} {
			var instances []struct{ ServiceTags []string }
			if err := r.o.Consul.get(ctx, "/v1/catalog/service/"+name, &instances); err != nil {
				return failed("%v", err)
			}
			for _, i := range instances {
				for _, tag := range i.ServiceTags {
					if v, is := strings.CutPrefix(tag, "version="); is {
						add(name, v)
					}
				}
			}
		}
	}
	return judgeVersions(seen)
}

func judgeVersions(seen map[string]map[string]int) finding {
	var differ, alike []string
	for _, program := range slices.Sorted(maps.Keys(seen)) {
		versions := slices.Sorted(maps.Keys(seen[program]))
		if len(versions) == 1 {
			alike = append(alike, fmt.Sprintf("%s %s × %d", program, versions[0], seen[program][versions[0]]))
			continue
		}
		var each []string
		for _, v := range versions {
			each = append(each, fmt.Sprintf("%s × %d", v, seen[program][v]))
		}
		differ = append(differ, program+" runs as "+strings.Join(each, " and "))
	}
	switch {
	case len(seen) == 0:
		return skipped("neither Consul nor Nomad can be asked")
	case len(differ) > 0:
		return warning("%s; is a release under way?", strings.Join(differ, "; "))
	}
	return ok("%s", strings.Join(alike, ", "))
}

// certificates looks at those that Consul, Nomad and the front door show, at the operator's own, and at the files that were named.
func (r *run) certificates(ctx context.Context) finding {
	expiry := map[string]time.Time{}
	note := func(what string, c *x509.Certificate) {
		if old, seen := expiry[what]; c != nil && (!seen || c.NotAfter.Before(old)) {
			expiry[what] = c.NotAfter
		}
	}
	shown := func(what string, s *tls.ConnectionState) {
		if s != nil {
			for _, c := range s.PeerCertificates {
				note(what, c)
			}
		}
	}
	for _, e := range []*Endpoint{r.o.Consul, r.o.Nomad} {
		if e.secure() {
			_, _, state, err := e.do(ctx, request{path: "/v1/status/leader"})
			if err != nil {
				return failed("%s: %v", e.Name, err)
			}
			shown(e.Name, state)
			for _, c := range e.tls.Certificates {
				note("yours for "+e.Name, c.Leaf)
			}
		}
	}
	if strings.HasPrefix(r.o.API.Server, "https:") {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.o.API.Server, nil)
		if err != nil {
			return failed("%v", err)
		}
		res, err := r.o.API.Plain(10 * time.Second).Do(req)
		if err != nil {
			return failed("front door: %v", err)
		}
		res.Body.Close()
		shown("front door", res.TLS)
	}
	for _, file := range r.o.Certificates {
		c, err := readCertificate(file)
		if err != nil {
			return failed("%s: %v", file, err)
		}
		note(file, c)
	}
	return judgeCertificates(expiry, time.Now(), r.o.CertificateDays)
}

// readCertificate gives the first one in a file.
func readCertificate(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("there is no certificate in it")
}

func judgeCertificates(expiry map[string]time.Time, now time.Time, days int) finding {
	if len(expiry) == 0 {
		return skipped("none was shown: nothing here speaks TLS")
	}
	var notes []finding
	first := ""
	for _, what := range slices.Sorted(maps.Keys(expiry)) {
		at := expiry[what]
		if first == "" || at.Before(expiry[first]) {
			first = what
		}
		left := at.Sub(now)
		switch {
		case left <= 0:
			notes = append(notes, failed("%s ended on %s", what, at.Format(time.DateOnly)))
		case left < time.Duration(days)*24*time.Hour:
			notes = append(notes, warning("%s ends in %.0f days, on %s", what, left.Hours()/24, at.Format(time.DateOnly)))
		}
	}
	if len(notes) == 0 {
		notes = append(notes, ok("%d seen; the first to end: %s, on %s", len(expiry), first, expiry[first].Format(time.DateOnly)))
	}
	return worst(notes...)
}
