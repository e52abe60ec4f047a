package env

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type options struct {
	Common
	Port  int           `env:"PORT" envDefault:"3001" min:"0" max:"65535" desc:"port to listen on"`
	Lease time.Duration `env:"WORKER_LEASE" envDefault:"15s" min:"1s" max:"10m" desc:"how long a session lives without a renewal"`
	Mode  string        `env:"MODE" envDefault:"a" oneof:"a|b" desc:"how"`
}

var enough = []string{"DATABASE_URL=postgres://u:p@h/d", "RABBITMQ_URL=amqp://u:p@h/", "INTERNAL_TOKEN=t"}

func TestParse(t *testing.T) {
	t.Parallel()
	var o options
	if err := Parse(nil, append(enough, "WORKER_LEASE=2500", "PORT="), &o, nil); err != nil {
		t.Fatal(err)
	}
	if o.Port != 3001 || o.Lease != 2500*time.Millisecond || o.RabbitMQExchange != "flow_orchestration" || !o.MetricsEnabled {
		t.Errorf("%+v", o)
	}
}

func TestParseNamesEveryProblem(t *testing.T) {
	t.Parallel()
	var o options
	err := Parse(nil, []string{"DATABASE_URL=x", "PORT=70000", "WORKER_LEASE=soon", "MODE=c", "METRICS_ENABLED=perhaps"}, &o, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"6 problems", "PORT is \"70000\": it must be a whole number from 0 to 65535", "WORKER_LEASE is \"soon\": it must be a duration", "MODE is \"c\": it must be one of a, b",
		"METRICS_ENABLED is \"perhaps\": it must be true or false", "RABBITMQ_URL is not set", "INTERNAL_TOKEN is not set"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var o options
	if err := Parse(nil, append(enough[:2:2], "INTERNAL_TOKEN_FILE="+path), &o, nil); err != nil || o.InternalToken != "hidden" {
		t.Errorf("%q %v", o.InternalToken, err)
	}
	err := Parse(nil, append(enough, "INTERNAL_TOKEN_FILE="+path), &options{}, nil)
	if err == nil || !strings.Contains(err.Error(), "both set") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := Parse([]string{"--help"}, nil, &options{}, &b); !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	for _, want := range []string{"WORKER_LEASE", "[15s]", "DATABASE_URL", "(required)", "must be one of a, b"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("missing %q in:\n%s", want, b.String())
		}
	}
}
