package api

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/gateway/internal/problem"
)

type metrics struct {
	requests *prometheus.HistogramVec
	inFlight prometheus.Gauge
	opened   *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "flow_gateway_request_seconds", Help: "Requests by route, method and class of status; those that wait take as long as they wait.",
			Buckets: []float64{.0005, .001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 2, 5, 15, 60}}, []string{"route", "method", "status"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "flow_gateway_requests_in_flight", Help: "Requests that are being answered."}),
		opened:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flow_gateway_credentials_opened_total", Help: "Credentials that workers asked for, by result: opened, refused (a wrong token), error."}, []string{"result"}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.inFlight, m.opened)
	}
	return m
}

// recorder sees the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observe measures every request, and answers when a handler panics.
func (a *API) observe(next http.Handler) http.Handler {
	classes := [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		begun := time.Now()
		a.metrics.inFlight.Inc()
		defer func() {
			a.metrics.inFlight.Dec()
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				a.log.Error("a handler panicked", "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				if rec.status == 0 {
					problem.New(http.StatusInternalServerError, "this is a fault of the gateway: its log says more").Write(rec)
				}
			}
			route := chi.RouteContext(r.Context()).RoutePattern()
			if route == "" || route == "/*" {
				route = "none"
			}
			a.metrics.requests.WithLabelValues(route, r.Method, classes[min(max(rec.status/100, 0), 5)]).Observe(time.Since(begun).Seconds())
		}()
		next.ServeHTTP(rec, r)
	})
}
