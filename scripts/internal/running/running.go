// Package running finds the platform that make up has started on this machine: where it listens, what Nomad runs, and the secrets that a drill or a demonstration needs.
package running

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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Platform is what make up has started on this machine.
type Platform struct {
	Dir                     string // FLOW_DATA_DIR
	Ports                   map[string]int
	NomadToken, ConsulToken string
	Client                  *http.Client
}

// Open reads what make up wrote into FLOW_DATA_DIR.
func Open(getenv func(string) string) (*Platform, error) {
	p := &Platform{Dir: getenv("FLOW_DATA_DIR"), NomadToken: getenv("NOMAD_TOKEN"), ConsulToken: getenv("CONSUL_HTTP_TOKEN"), Client: &http.Client{Timeout: 5 * time.Second}}
	if p.Dir == "" {
		p.Dir = "/var/lib/flowplatform"
	}
	p.Dir = filepath.Clean(p.Dir)
	b, err := os.ReadFile(filepath.Join(p.Dir, "config", "ports.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no platform in %s: run make up first, or name its FLOW_DATA_DIR", p.Dir)
	}
	if err == nil {
		err = json.Unmarshal(b, &p.Ports)
	}
	if err != nil {
		return nil, fmt.Errorf("read where the platform is: %w", err)
	}
	for _, needed := range []string{"FRONT_DOOR_PORT", "CONSUL_PORT", "NOMAD_PORT", "POSTGRES_PORT"} {
		if p.Ports[needed] == 0 {
			return nil, fmt.Errorf("%s/config/ports.json has no %s: run make up again", p.Dir, needed)
		}
	}
	return p, nil
}

// Lock keeps make up, down and clean, and other drills, away from this platform until it is released.
func (p *Platform) Lock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run as root: the platform's processes are other users'")
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, ".flowplatform"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%s is not the platform's: %w", p.Dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a make up, down, clean or chaos is at work on %s", p.Dir)
	}
	return func() { f.Close() }, nil
}

// FrontDoor is the URL of the API.
func (p *Platform) FrontDoor() string {
	return fmt.Sprintf("http://localhost:%d", p.Ports["FRONT_DOOR_PORT"])
}

// Nomad gets a path of Nomad's API.
func (p *Platform) Nomad(ctx context.Context, path string, out any) error {
	return p.get(ctx, p.Ports["NOMAD_PORT"], path, "X-Nomad-Token", p.NomadToken, out)
}

// Consul gets a path of Consul's API.
func (p *Platform) Consul(ctx context.Context, path string, out any) error {
	return p.get(ctx, p.Ports["CONSUL_PORT"], path, "X-Consul-Token", p.ConsulToken, out)
}

func (p *Platform) get(ctx context.Context, port int, path, header, token string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set(header, token)
	}
	res, err := p.Client.Do(req)
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

// Secret reads a key of a Nomad Variable. It goes into no argument, no file and no environment.
func (p *Platform) Secret(ctx context.Context, path, key string) (string, error) {
	var v struct{ Items map[string]string }
	if err := p.Nomad(ctx, "/v1/var/"+path, &v); err != nil {
		return "", fmt.Errorf("read the Nomad Variable %s: %w; is the platform up?", path, err)
	}
	if v.Items[key] == "" {
		return "", fmt.Errorf("the Nomad Variable %s has no %s: run make up again", path, key)
	}
	return v.Items[key], nil
}

// Access is how a drill gets in: the token that make up made for make bench, and the orchestrators' role in the database, which may read
// executions and reports. A drill's session should be read-only.
func (p *Platform) Access(ctx context.Context) (token, database string, err error) {
	if token, err = p.Secret(ctx, "flowplatform/login", "bench_token"); err != nil {
		return "", "", err
	}
	password, err := p.Secret(ctx, "nomad/jobs/orchestrator", "database_password")
	if err != nil {
		return "", "", err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword("flow_orchestrator", password), Host: fmt.Sprintf("127.0.0.1:%d", p.Ports["POSTGRES_PORT"]), Path: "/flow", RawQuery: "sslmode=disable"}
	return token, u.String(), nil
}

// Allocation is where Nomad runs one instance of a job.
type Allocation struct {
	ID, Name                    string
	ClientStatus, DesiredStatus string
}

// Running lists the allocations of a job that run on this machine, in the order of their names, so that a pick means the same in each drill.
func (p *Platform) Running(ctx context.Context, job string) ([]Allocation, error) {
	var list []Allocation
	if err := p.Nomad(ctx, "/v1/job/"+job+"/allocations", &list); err != nil {
		return nil, fmt.Errorf("find %s: %w", job, err)
	}
	list = slices.DeleteFunc(list, func(a Allocation) bool {
		if a.ClientStatus != "running" || a.DesiredStatus != "run" {
			return true
		}
		_, err := os.Stat(filepath.Join(p.Dir, "nomad-client", "alloc", a.ID))
		return err != nil // another machine's
	})
	slices.SortFunc(list, func(a, b Allocation) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return list, nil
}

// ProcessesOf lists the processes of an allocation's tasks: those in its control group.
func (p *Platform) ProcessesOf(a Allocation) ([]int, error) {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range groups {
		b, err := os.ReadFile(file)
		if err != nil || !inGroupOf(string(b), a.ID) {
			continue // it ended meanwhile, or is not ours
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("%s (allocation %s) has no process on this machine", a.Name, a.ID)
	}
	return pids, nil
}

// inGroupOf reads a /proc/<pid>/cgroup: does a path end in <allocation>.<task>, with .scope where there is systemd?
func inGroupOf(cgroup, allocation string) bool {
	for line := range strings.Lines(cgroup) {
		last := strings.TrimSpace(line[strings.LastIndex(line, "/")+1:])
		if id, _, found := strings.Cut(last, "."); found && id == allocation {
			return true
		}
	}
	return false
}
