// Package telemetry is what every process shows of itself: JSON logs, health, metrics.
package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"flowplatform/services/internal/lifecycle"
)

// Logger writes JSON lines to w from the level on: debug, info, warn, error.
func Logger(service, level string, w io.Writer) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("LOG_LEVEL %q is not a level: it may be debug, info, warn or error", level)
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})).With("service", service), nil
}

// Registry makes a registry of a process's own, with the runtime's and the process's metrics.
func Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Health knows what a process depends on, and whether it is there.
type Health struct {
	mu   sync.Mutex
	deps []*dependency
	now  func() time.Time
}

type dependency struct {
	name     string
	required bool
	check    func(context.Context) error

	mu    sync.Mutex
	asked time.Time
	err   error
	since time.Time // of the present state
	known bool
}

// How long one check may take, and how long its answer is good for.
const (
	checkBound = 900 * time.Millisecond
	checkFresh = time.Second
)

// NewHealth makes one without dependencies: ready.
func NewHealth() *Health { return &Health{now: time.Now} }

// Register adds a dependency. Without a required one the process is unavailable, without another one degraded. check must honour its context.
func (h *Health) Register(name string, required bool, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deps = append(h.deps, &dependency{name: name, required: required, check: check})
}

// Status is the body of /readyz.
type Status struct {
	Status       string                `json:"status"` // ready, degraded, unavailable
	Dependencies map[string]Dependency `json:"dependencies"`
}

// Dependency is one of them.
type Dependency struct {
	OK       bool      `json:"ok"`
	Required bool      `json:"required"`
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since"`
}

// Status asks all dependencies at once; answers younger than a second are taken as they are.
func (h *Health) Status(ctx context.Context) Status {
	h.mu.Lock()
	deps := slices.Clone(h.deps)
	h.mu.Unlock()
	out := Status{Status: "ready", Dependencies: make(map[string]Dependency, len(deps))}
	answers := make([]Dependency, len(deps))
	var wg sync.WaitGroup
	for i, d := range deps {
		wg.Go(func() { answers[i] = d.ask(ctx, h.now) })
	}
	wg.Wait()
	for i, d := range deps {
		out.Dependencies[d.name] = answers[i]
		switch {
		case answers[i].OK:
		case d.required:
			out.Status = "unavailable"
		case out.Status == "ready":
			out.Status = "degraded"
		}
	}
	return out
}

func (d *dependency) ask(ctx context.Context, now func() time.Time) Dependency {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known || now().Sub(d.asked) > checkFresh {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkBound)
		err := d.check(ctx)
		cancel()
		if !d.known || (err == nil) != (d.err == nil) {
			d.since = now()
		}
		d.known, d.err, d.asked = true, err, now()
	}
	out := Dependency{OK: d.err == nil, Required: d.required, Since: d.since.UTC()}
	if d.err != nil {
		out.Error = d.err.Error()
	}
	return out
}

// Healthz answers that the process is alive.
func (h *Health) Healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"status":"alive"}`+"\n")
}

// Readyz answers 200 when the process can do its work (ready or degraded), else 503, with each dependency.
func (h *Health) Readyz(w http.ResponseWriter, r *http.Request) {
	st := h.Status(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if st.Status == "unavailable" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(st)
}

// MetricsServer serves /metrics, /healthz and /readyz on a listener of its own.
type MetricsServer struct {
	*lifecycle.Server
	lis net.Listener
}

// ServeMetrics listens and serves. Close it with Shutdown.
func ServeMetrics(address string, reg *prometheus.Registry, h *Health, log *slog.Logger) (*MetricsServer, error) {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w (METRICS_PORT moves it)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", h.Healthz)
	mux.HandleFunc("GET /readyz", h.Readyz)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 120 * time.Second}
	return &MetricsServer{lifecycle.Serve(srv, lis, func(err error) { log.Error("metrics server ended", "error", err) }), lis}, nil
}

// Addr is where it listens.
func (m *MetricsServer) Addr() string { return m.lis.Addr().String() }
