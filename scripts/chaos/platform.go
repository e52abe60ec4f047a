package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// platform is what make up has started on this machine.
type platform struct {
	dir                     string // FLOW_DATA_DIR
	ports                   map[string]int
	nomadToken, consulToken string
	client                  *http.Client
}

func openPlatform(getenv func(string) string) (*platform, error) {
	p := &platform{dir: getenv("FLOW_DATA_DIR"), nomadToken: getenv("NOMAD_TOKEN"), consulToken: getenv("CONSUL_HTTP_TOKEN"), client: &http.Client{Timeout: 5 * time.Second}}
	if p.dir == "" {
		p.dir = "/var/lib/flowplatform"
	}
	p.dir = filepath.Clean(p.dir)
	b, err := os.ReadFile(filepath.Join(p.dir, "config", "ports.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no platform in %s: run make up first, or name its FLOW_DATA_DIR", p.dir)
	}
	if err == nil {
		err = json.Unmarshal(b, &p.ports)
	}
	if err != nil {
		return nil, fmt.Errorf("read where the platform is: %w", err)
	}
	for _, needed := range []string{"FRONT_DOOR_PORT", "CONSUL_PORT", "NOMAD_PORT", "POSTGRES_PORT"} {
		if p.ports[needed] == 0 {
			return nil, fmt.Errorf("%s/config/ports.json has no %s: run make up again", p.dir, needed)
		}
	}
	return p, nil
}

// lock keeps make up, down and clean, and other drills, away from this platform until it is released.
func (p *platform) lock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run as root: the platform's processes are other users'")
	}
	f, err := os.OpenFile(filepath.Join(p.dir, ".flowplatform"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%s is not the platform's: %w", p.dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a make up, down, clean or chaos is at work on %s", p.dir)
	}
	return func() { f.Close() }, nil
}

func (p *platform) frontDoor() string {
	return fmt.Sprintf("http://localhost:%d", p.ports["FRONT_DOOR_PORT"])
}

func (p *platform) nomad(ctx context.Context, path string, out any) error {
	return p.get(ctx, p.ports["NOMAD_PORT"], path, "X-Nomad-Token", p.nomadToken, out)
}

func (p *platform) consul(ctx context.Context, path string, out any) error {
	return p.get(ctx, p.ports["CONSUL_PORT"], path, "X-Consul-Token", p.consulToken, out)
}

func (p *platform) get(ctx context.Context, port int, path, header, token string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set(header, token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
		return fmt.Errorf("GET %s: %d %s", path, res.StatusCode, strings.TrimSpace(string(b)))
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// secret reads a key of a Nomad Variable. It goes into no argument, no file and no environment.
func (p *platform) secret(ctx context.Context, path, key string) (string, error) {
	var v struct{ Items map[string]string }
	if err := p.nomad(ctx, "/v1/var/"+path, &v); err != nil {
		return "", fmt.Errorf("read the Nomad Variable %s: %w; is the platform up?", path, err)
	}
	if v.Items[key] == "" {
		return "", fmt.Errorf("the Nomad Variable %s has no %s: run make up again", path, key)
	}
	return v.Items[key], nil
}

// access is how the drill gets in: the token that make up made for make bench, and the orchestrators' role in the database, which may read
// executions and reports. The drill's session is read-only.
func (p *platform) access(ctx context.Context) (token, database string, err error) {
	if token, err = p.secret(ctx, "flowplatform/login", "bench_token"); err != nil {
		return "", "", err
	}
	password, err := p.secret(ctx, "nomad/jobs/orchestrator", "database_password")
	if err != nil {
		return "", "", err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword("flow_orchestrator", password), Host: fmt.Sprintf("127.0.0.1:%d", p.ports["POSTGRES_PORT"]), Path: "/flow", RawQuery: "sslmode=disable"}
	return token, u.String(), nil
}

// allocation is where Nomad runs one instance of a job.
type allocation struct {
	ID, Name                    string
	ClientStatus, DesiredStatus string
}

// running lists the allocations of a job that run on this machine, in the order of their names, so that a pick means the same in each drill.
func (p *platform) running(ctx context.Context, job string) ([]allocation, error) {
	var list []allocation
	if err := p.nomad(ctx, "/v1/job/"+job+"/allocations", &list); err != nil {
		return nil, fmt.Errorf("find %s: %w", job, err)
	}
	list = slices.DeleteFunc(list, func(a allocation) bool {
		if a.ClientStatus != "running" || a.DesiredStatus != "run" {
			return true
		}
		_, err := os.Stat(filepath.Join(p.dir, "nomad-client", "alloc", a.ID))
		return err != nil // another machine's
	})
	slices.SortFunc(list, func(a, b allocation) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return list, nil
}

// jobs that a drill needs, and leaves healthy.
func jobs() []string {
	return []string{"postgres", "rabbitmq", "redis", "orchestrator", "gateway", "worker", "front-door"}
}

// healthy counts the healthy instances of each job. One without any is an error: a drill on a sick platform proves nothing.
func (p *platform) healthy(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for _, job := range jobs() {
		var passing []struct{}
		if err := p.consul(ctx, "/v1/health/service/"+job+"?passing=true", &passing); err != nil {
			return nil, fmt.Errorf("ask Consul: %w; is the platform up?", err)
		}
		if out[job] = len(passing); len(passing) == 0 {
			return nil, fmt.Errorf("no %s is healthy: see make status", job)
		}
	}
	return out, nil
}

// recovered waits until as many instances are healthy as before. Workers may be fewer: their number is the autoscaler's business.
func (p *platform) recovered(ctx context.Context, before map[string]int) error {
	const bound = 2 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		now, err := p.healthy(ctx)
		if err == nil {
			for _, job := range jobs() {
				if want := before[job]; job != "worker" && now[job] < want {
					err = fmt.Errorf("%d of %d %s are healthy", now[job], want, job)
				}
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the platform is not as before, %s after the drill: %w", bound, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
