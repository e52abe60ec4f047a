package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// port is one port of this machine that the platform takes, by the variable that moves it.
type port struct {
	Variable string
	What     string
	Default  func(settings) int
	Search   bool // the next free one is taken when the default is in use: nobody needs to know its number
	Follows  bool // its default depends on another one
	User     bool // worth telling in the usage
}

// ports lists every port that is fixed on this machine. All others are dynamic and found through Consul. Order matters:
// a default may depend on those above.
func ports() []port {
	fixed := func(n int) func(settings) int { return func(settings) int { return n } }
	near := func(variable string, distance int) func(settings) int {
		return func(s settings) int { return s.Ports[variable] + distance }
	}
	return []port{
		{Variable: "FRONT_DOOR_PORT", What: "the front door", Default: fixed(8080), User: true},
		{Variable: "CONSUL_PORT", What: "Consul's HTTP API and UI", Default: fixed(8500), User: true},
		{Variable: "CONSUL_RPC_PORT", What: "Consul's servers", Default: near("CONSUL_PORT", -200), Follows: true},
		{Variable: "CONSUL_SERF_PORT", What: "Consul's gossip", Default: near("CONSUL_PORT", -199), Follows: true},
		{Variable: "NOMAD_PORT", What: "Nomad's HTTP API and UI", Default: fixed(4646), User: true},
		{Variable: "NOMAD_RPC_PORT", What: "Nomad's servers", Default: near("NOMAD_PORT", 1), Follows: true},
		{Variable: "NOMAD_SERF_PORT", What: "Nomad's gossip", Default: near("NOMAD_PORT", 2), Follows: true},
		{Variable: "NOMAD_CLIENT_PORT", What: "Nomad's client", Default: near("NOMAD_PORT", 10), Follows: true},
		{Variable: "ARTIFACTS_PORT", What: "the artifacts", Default: fixed(16080), Search: true},
		{Variable: "POSTGRES_PORT", What: "PostgreSQL", Default: fixed(15432), Search: true},
		{Variable: "RABBITMQ_PORT", What: "RabbitMQ", Default: fixed(15671), Search: true},
		{Variable: "REDIS_PORT", What: "Redis", Default: fixed(16379), Search: true},
		{Variable: "PROMETHEUS_PORT", What: "Prometheus", Default: fixed(19090), Search: true},
	}
}

const (
	defaultDataDir   = "/var/lib/flowplatform"
	loopback         = "127.0.0.1"
	loopbackDevice   = "lo"
	dataDirVariable  = "FLOW_DATA_DIR"
	consulTokenName  = "CONSUL_HTTP_TOKEN"
	nomadTokenName   = "NOMAD_TOKEN"
	markerName       = ".flowplatform"
	rememberedName   = "ports.json"
	jobVariablesName = "jobs.hcl"
)

// settings is what one run goes by.
type settings struct {
	Root        string // the checkout
	DataDir     string
	NodeName    string
	ConsulToken string
	NomadToken  string
	Ports       map[string]int  // by variable
	Settled     map[string]bool // those that the environment or an earlier run named
}

// readSettings takes the environment, then what an earlier run remembered, then the defaults. All problems come at once.
func readSettings(getenv func(string) string) (settings, error) {
	s := settings{
		DataDir:     defaultDataDir,
		ConsulToken: getenv(consulTokenName),
		NomadToken:  getenv(nomadTokenName),
		Ports:       map[string]int{},
		Settled:     map[string]bool{},
	}
	var problems []error
	root, err := findRoot()
	if err != nil {
		return s, err
	}
	s.Root = root
	if dir := getenv(dataDirVariable); dir != "" {
		s.DataDir = dir
	}
	if err := checkDataDir(s.DataDir, s.Root, getenv("HOME")); err != nil {
		return s, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	s.NodeName = host

	remembered := map[string]int{}
	if b, err := os.ReadFile(s.path("config", rememberedName)); err == nil {
		if err := json.Unmarshal(b, &remembered); err != nil {
			problems = append(problems, fmt.Errorf("%s can't be read: %w; remove it to begin with the defaults", s.path("config", rememberedName), err))
		}
	}
	for _, p := range ports() {
		text := getenv(p.Variable)
		switch {
		case text != "":
			number, err := strconv.Atoi(text)
			if err != nil || number < 1 || number > 65535 {
				problems = append(problems, fmt.Errorf("%s=%q is no port: a number from 1 to 65535", p.Variable, text))
				continue
			}
			s.Ports[p.Variable] = number
			s.Settled[p.Variable] = true
		case remembered[p.Variable] != 0:
			s.Ports[p.Variable] = remembered[p.Variable]
			s.Settled[p.Variable] = true
		default:
			s.Ports[p.Variable] = p.Default(s)
		}
	}
	return s, errors.Join(problems...)
}

func (s settings) path(elements ...string) string {
	return filepath.Join(append([]string{s.DataDir}, elements...)...)
}

func (s settings) address(variable string) string {
	return loopback + ":" + strconv.Itoa(s.Ports[variable])
}

func (s settings) url(variable string) string { return "http://" + s.address(variable) }

func (s settings) frontDoor() string {
	return "http://localhost:" + strconv.Itoa(s.Ports["FRONT_DOOR_PORT"])
}

// search moves those ports that nobody needs to know, and that nobody has named, to the next free one.
func (s settings) search(free func(int) bool) error {
	for _, p := range ports() {
		if !p.Search || s.Settled[p.Variable] {
			continue
		}
		from := s.Ports[p.Variable]
		number := from
		for number < from+100 && !free(number) {
			number++
		}
		if number == from+100 {
			return fmt.Errorf("no free port for %s from %d to %d; name one: make up %s=…", p.What, from, number-1, p.Variable)
		}
		s.Ports[p.Variable] = number
	}
	return nil
}

// remember writes the ports down for the runs to come.
func (s settings) remember() error {
	kept := map[string]int{}
	for _, p := range ports() {
		// One that follows another is not written down: it goes along when that one is moved.
		if !p.Follows || s.Ports[p.Variable] != p.Default(s) {
			kept[p.Variable] = s.Ports[p.Variable]
		}
	}
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encode ports: %w", err)
	}
	return writeFile(s.path("config", rememberedName), append(b, '\n'), 0o644)
}

// findRoot goes up from the working directory to the checkout.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module flowplatform\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("this is not a checkout of the platform: no go.mod of module flowplatform here or above")
		}
		dir = parent
	}
}

// checkDataDir refuses directories that nobody can mean: clean removes everything in it.
func checkDataDir(dir, root, home string) error {
	refuse := func(why string) error {
		return fmt.Errorf("%s=%q %s; name a directory that the platform may have for itself, for example %s", dataDirVariable, dir, why, defaultDataDir)
	}
	if !filepath.IsAbs(dir) {
		return refuse("is not an absolute path")
	}
	if filepath.Clean(dir) != strings.TrimRight(dir, "/") {
		return refuse("is not written plainly")
	}
	clean := filepath.Clean(dir)
	if strings.ContainsAny(clean, "\"${}\\\n") {
		return refuse("has characters that configuration files can't hold")
	}
	if strings.Count(clean, "/") < 2 {
		return refuse("is at the top of the file system")
	}
	if slices.Contains(systemDirectories(), clean) || (home != "" && clean == filepath.Clean(home)) {
		return refuse("belongs to the system or is somebody's home")
	}
	for _, system := range []string{"/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/dev", "/proc", "/sys", "/run/systemd"} {
		if isWithin(clean, system) {
			return refuse("is within " + system)
		}
	}
	if isWithin(root, clean) {
		return refuse("holds this checkout")
	}
	if info, err := os.Lstat(clean); err == nil {
		if info.Mode()&os.ModeSymlink != 0 {
			return refuse("is a symbolic link")
		}
		if !info.IsDir() {
			return refuse("is not a directory")
		}
	}
	return nil
}

// isWithin says whether path is dir or below it. Both are clean.
func isWithin(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimRight(dir, "/")+"/")
}

func systemDirectories() []string {
	return []string{
		"/var/lib", "/var/log", "/var/cache", "/var/tmp", "/var/run", "/var/spool", "/var/mail", "/var/www", "/var/opt",
		"/var/lib/dpkg", "/var/lib/apt", "/var/lib/postgresql", "/var/lib/rabbitmq", "/var/lib/redis", "/var/lib/nginx",
		"/var/lib/docker", "/var/lib/systemd", "/opt/local", "/home/root", "/run/lock", "/run/user",
	}
}

// ownDataDir makes the data directory ours: it is new, empty, or bears our mark.
func (s settings) ownDataDir() error {
	entries, err := os.ReadDir(s.DataDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w", s.DataDir, err)
	}
	marked := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == markerName })
	if len(entries) > 0 && !marked {
		return fmt.Errorf("%s=%s holds files that are not the platform's; name an empty directory", dataDirVariable, s.DataDir)
	}
	if err := os.MkdirAll(s.DataDir, 0o755); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if marked {
		return nil
	}
	return writeFile(s.path(markerName), []byte("make clean removes everything here.\n"), 0o644)
}

// isOurs says whether the data directory exists and bears our mark.
func (s settings) isOurs() bool {
	_, err := os.Stat(s.path(markerName))
	return err == nil
}

// writeFile replaces a file whole, so that a reader never sees half of it.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Chmod(next, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func describeEnvironment() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-18s [%s] everything that the platform keeps\n", dataDirVariable, defaultDataDir)
	for _, p := range ports() {
		if p.User {
			fmt.Fprintf(&b, "  %-18s [%d] %s\n", p.Variable, p.Default(settings{}), p.What)
		}
	}
	return b.String()
}
