package testkit

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// RabbitServer is a RabbitMQ of tests.
type RabbitServer struct {
	Port int
	dir  string
	env  []string
	mu   sync.Mutex
	proc *Process
	next atomic.Int64
}

const rabbitBin = "/usr/lib/rabbitmq/bin"

var sharedRabbit struct {
	once sync.Once
	s    *RabbitServer
	err  error
}

// RabbitMQ gives the shared server: for tests that don't break it.
func RabbitMQ(t testing.TB) *RabbitServer {
	t.Helper()
	sharedRabbit.once.Do(func() { sharedRabbit.s, sharedRabbit.err = newRabbit() })
	if sharedRabbit.err != nil {
		t.Fatal(sharedRabbit.err)
	}
	return sharedRabbit.s
}

// NewRabbitMQ starts a server for one test: it may be stopped and killed.
func NewRabbitMQ(t testing.TB) *RabbitServer {
	t.Helper()
	s, err := newRabbit()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		os.RemoveAll(s.dir)
	})
	return s
}

func newRabbit() (*RabbitServer, error) {
	if _, err := find("RabbitMQ", filepath.Join(rabbitBin, "rabbitmq-server")); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	s := &RabbitServer{Port: ports[0]}
	if s.dir, err = directory("flow-test-rabbitmq-", "rabbitmq"); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nloopback_users = none\ndisk_free_limit.absolute = 50MB\nlog.console.level = warning\nlog.file = false\nlog.console = true\nchannel_max = 2047\nvm_memory_calculation_strategy = allocated\n", s.Port)
	for name, text := range map[string]string{"rabbitmq.conf": conf, "plugins": "[].\n"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	s.env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + s.dir,
		fmt.Sprintf("RABBITMQ_NODENAME=test%d@localhost", s.Port), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[1]), fmt.Sprintf("ERL_EPMD_PORT=%d", ports[2]), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE=" + in("rabbitmq"), "RABBITMQ_MNESIA_BASE=" + in("mnesia"), "RABBITMQ_LOG_BASE=" + in("log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("plugins"), "RABBITMQ_PID_FILE=" + in("pid"), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"}
	return s, s.start()
}

func (s *RabbitServer) start() error {
	p, err := StartProcess(ProcessOptions{Name: "rabbitmq", Path: filepath.Join(rabbitBin, "rabbitmq-server"), Env: s.env, User: "rabbitmq", Dir: s.dir, Alone: true})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	return await(90*time.Second, p, s.greets)
}

// greets tells whether the server answers the AMQP greeting: its port is open before it can.
func (s *RabbitServer) greets() error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	kind, err := bufio.NewReader(c).ReadByte()
	if err == nil && kind != 1 {
		return fmt.Errorf("it greets with frame type %d", kind)
	}
	return err
}

// Ctl runs rabbitmqctl and gives what it prints.
func (s *RabbitServer) Ctl(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(rabbitBin, "rabbitmqctl"), append([]string{"-q"}, args...)...)
	cmd.Env, cmd.Dir = s.env, s.dir
	if err := asUser(cmd, "rabbitmq"); err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// MustCtl is Ctl for tests.
func (s *RabbitServer) MustCtl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.Ctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// VHost makes a virtual host for one test and gives its URL and name.
func (s *RabbitServer) VHost(t testing.TB) (url, name string) {
	t.Helper()
	name = fmt.Sprintf("test%d", s.next.Add(1))
	// One start of an Erlang machine instead of two.
	if _, err := s.Ctl("eval", fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"test">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%s">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`, name, name)); err != nil {
		t.Fatal(err)
	}
	return s.URL(name), name
}

// URL of a virtual host.
func (s *RabbitServer) URL(vhost string) string {
	return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/%s", s.Port, vhost)
}

func (s *RabbitServer) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends it with SIGKILL.
func (s *RabbitServer) Kill() { s.process().Kill() }

// Stop ends it in order.
func (s *RabbitServer) Stop() {
	if !s.process().Terminate(30 * time.Second) {
		s.Kill()
	}
}

// Start starts it again, with the same data and port.
func (s *RabbitServer) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// Freeze stops it where it stands; Thaw lets it go on.
func (s *RabbitServer) Freeze() { s.process().Freeze() }

// Thaw is the end of Freeze.
func (s *RabbitServer) Thaw() { s.process().Thaw() }
