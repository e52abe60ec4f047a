// Package env reads the options of a process from its environment: every problem at once, each with the variable's name, its value
// and what it may be. Options are structs with tags:
//
//	Limit int `env:"API_RATE_LIMIT" envDefault:"1000" min:"1" max:"1000000" desc:"requests a minute and client"`
//
// min and max hold for numbers and durations, oneof (a|b|c) for texts, required:"true" for what has no default. A Duration given as a bare number means
// milliseconds. Fields tagged secret:"true" may also come from a file that NAME_FILE names, and are never printed.
package env

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	caarlos "github.com/caarlos0/env/v11"
)

// ErrHelp says that --help was asked for and printed.
var ErrHelp = errors.New("help was printed")

// Common is what every service reads, beside its ports.
type Common struct {
	BindAddress         string `env:"BIND_ADDRESS" envDefault:"127.0.0.1" desc:"address to listen on"`
	LogLevel            string `env:"LOG_LEVEL" envDefault:"info" oneof:"debug|info|warn|error" desc:"from which level on to log"`
	MetricsEnabled      bool   `env:"METRICS_ENABLED" envDefault:"true" desc:"serve /metrics on METRICS_PORT"`
	DatabaseURL         string `env:"DATABASE_URL" secret:"true" required:"true" desc:"PostgreSQL, postgres://user:password@host:port/database"`
	RedisURL            string `env:"REDIS_URL" secret:"true" desc:"Redis, redis://:password@host:port/0; without it: no live events, limits for each gateway alone"`
	RedisClusterEnabled bool   `env:"REDIS_CLUSTER_ENABLED" envDefault:"false" desc:"REDIS_URL names a cluster"`
	RabbitMQURL         string `env:"RABBITMQ_URL" secret:"true" required:"true" desc:"RabbitMQ, amqp://user:password@host:port/vhost"`
	RabbitMQExchange    string `env:"RABBITMQ_EXCHANGE" envDefault:"flow_orchestration" desc:"topic exchange of the platform"`
	ConsulAddress       string `env:"CONSUL_HTTP_ADDR" desc:"Consul agent, host:port or URL"`
	ConsulToken         string `env:"CONSUL_HTTP_TOKEN" secret:"true" desc:"token for Consul"`
	NomadAddress        string `env:"NOMAD_ADDR" desc:"Nomad agent, URL"`
	NomadToken          string `env:"NOMAD_TOKEN" secret:"true" desc:"token for Nomad"`
	OTLPEndpoint        string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" desc:"where traces go; none: no traces"`
	InternalToken       string `env:"INTERNAL_TOKEN" secret:"true" required:"true" desc:"bearer token of calls between services"`
	NodeEnv             string `env:"NODE_ENV" desc:"a label in logs"`
}

// Parse fills into (a pointer to a struct) from environ ("NAME=value"; nil: the process's own). --help among args prints all names to out and gives ErrHelp.
func Parse(args, environ []string, into any, out io.Writer) error {
	if environ == nil {
		environ = os.Environ()
	}
	fields := fieldsOf(reflect.ValueOf(into).Elem())
	if len(args) > 0 {
		if slices.ContainsFunc(args, func(a string) bool { return a == "--help" || a == "-h" || a == "help" }) {
			help(out, fields)
			return ErrHelp
		}
		return fmt.Errorf("unknown argument %q: this program is set up by its environment; --help lists the names", args[0])
	}
	vars := caarlos.ToMap(environ)
	var problems []string
	for _, f := range fields {
		if f.secret {
			if p := f.fromFile(vars); p != "" {
				problems = append(problems, p)
			}
		}
		if v, ok := vars[f.name]; ok && v == "" {
			delete(vars, f.name) // set and empty is not set: job files can't leave a name out
		}
		if v, ok := vars[f.name]; ok && f.duration() {
			if _, err := strconv.ParseInt(v, 10, 64); err == nil {
				vars[f.name] = v + "ms"
			}
		}
	}
	bad := map[string]bool{}
	if err := caarlos.ParseWithOptions(into, caarlos.Options{Environment: vars}); err != nil {
		var agg caarlos.AggregateError
		if !errors.As(err, &agg) {
			return fmt.Errorf("environment: %w", err)
		}
		for _, e := range agg.Errors {
			var pe caarlos.ParseError
			if !errors.As(e, &pe) {
				return fmt.Errorf("environment: %w", e)
			}
			for _, f := range fields {
				if f.field == pe.Name {
					bad[f.name] = true
					problems = append(problems, fmt.Sprintf("%s is %s: it must be %s", f.name, f.show(vars[f.name]), f.allowed()))
				}
			}
		}
	}
	for _, f := range fields {
		if !bad[f.name] {
			if p := f.check(); p != "" {
				problems = append(problems, p)
			}
		}
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		return fmt.Errorf("the environment has %d problems (--help lists all names):\n  %s", len(problems), strings.Join(slices.Compact(problems), "\n  "))
	}
	return nil
}

// field is one option.
type field struct {
	name, field, def, desc, min, max string
	oneof                            []string
	secret, required                 bool
	value                            reflect.Value
}

func fieldsOf(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			out = append(out, fieldsOf(v.Field(i))...)
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("env"), ",")
		if name == "" {
			continue
		}
		f := field{name: name, field: sf.Name, def: sf.Tag.Get("envDefault"), desc: sf.Tag.Get("desc"), min: sf.Tag.Get("min"), max: sf.Tag.Get("max"),
			secret: sf.Tag.Get("secret") == "true", required: sf.Tag.Get("required") == "true", value: v.Field(i)}
		if o := sf.Tag.Get("oneof"); o != "" {
			f.oneof = strings.Split(o, "|")
		}
		out = append(out, f)
	}
	return out
}

func (f field) duration() bool { return f.value.Type() == reflect.TypeFor[time.Duration]() }

func (f field) fromFile(vars map[string]string) string {
	path := vars[f.name+"_FILE"]
	if path == "" {
		return ""
	}
	if vars[f.name] != "" {
		return fmt.Sprintf("%s and %s_FILE are both set: keep one", f.name, f.name)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("%s_FILE can't be read: %v", f.name, err)
	}
	vars[f.name] = strings.TrimRight(string(b), "\r\n")
	return ""
}

func (f field) show(v string) string {
	if f.secret {
		return "wrong (a secret, not shown)"
	}
	return strconv.Quote(v)
}

func (f field) allowed() string {
	if len(f.oneof) > 0 {
		return "one of " + strings.Join(f.oneof, ", ")
	}
	kind := "a text"
	switch {
	case f.duration():
		kind = "a duration like 30s (a bare number means milliseconds)"
	case f.value.CanInt():
		kind = "a whole number"
	case f.value.CanFloat():
		kind = "a number"
	case f.value.Kind() == reflect.Bool:
		kind = "true or false"
	}
	switch {
	case f.min != "" && f.max != "":
		kind += fmt.Sprintf(" from %s to %s", f.min, f.max)
	case f.min != "":
		kind += " from " + f.min + " on"
	case f.max != "":
		kind += " up to " + f.max
	}
	return kind
}

func (f field) check() string {
	switch v := f.value; {
	case f.required && v.IsZero():
		return fmt.Sprintf("%s is not set: it must be %s (%s)", f.name, f.allowed(), f.desc)
	case len(f.oneof) > 0 && v.Kind() == reflect.String && v.String() != "" && !slices.Contains(f.oneof, v.String()):
		return fmt.Sprintf("%s is %s: it must be %s", f.name, f.show(v.String()), f.allowed())
	case f.min != "" && f.compare(f.min) < 0, f.max != "" && f.compare(f.max) > 0:
		return fmt.Sprintf("%s is %s: it must be %s", f.name, f.show(fmt.Sprint(v.Interface())), f.allowed())
	}
	return ""
}

// compare compares the value with a bound from a tag; a bound that doesn't parse is a programmer's error.
func (f field) compare(bound string) int {
	switch {
	case f.duration():
		d, err := time.ParseDuration(bound)
		if err != nil {
			panic(f.name + ": bad bound " + bound)
		}
		return cmp.Compare(f.value.Int(), int64(d))
	case f.value.CanInt():
		n, err := strconv.ParseInt(bound, 10, 64)
		if err != nil {
			panic(f.name + ": bad bound " + bound)
		}
		return cmp.Compare(f.value.Int(), n)
	case f.value.CanFloat():
		n, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			panic(f.name + ": bad bound " + bound)
		}
		return cmp.Compare(f.value.Float(), n)
	}
	panic(f.name + ": bounds on what is no number")
}

func help(out io.Writer, fields []field) {
	fmt.Fprintln(out, "Options come from the environment; secrets also from the file that NAME_FILE names.")
	for _, f := range fields {
		def := "[" + f.def + "]"
		switch {
		case f.required:
			def = "(required)"
		case f.def == "":
			def = ""
		}
		fmt.Fprintf(out, "  %-28s %s %s\n  %-28s must be %s\n", f.name, f.desc, def, "", f.allowed())
	}
}
