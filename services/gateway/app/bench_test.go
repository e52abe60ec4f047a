package app

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// BenchmarkAccept measures POST /flows/{id}/executions from a socket to its 202, on a PostgreSQL with fsync and a real RabbitMQ; the clients
// share the cores, and the process.
func BenchmarkAccept(b *testing.B) {
	for _, clients := range []int{1, 32, 128} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmarkAccept(b, clients, 0) })
	}
	b.Run("100 per second", func(b *testing.B) { benchmarkAccept(b, 4, 100) })
}

func benchmarkAccept(b *testing.B, clients, perSecond int) {
	g := setup(b, setupOptions{postgres: testkit.NewPostgres(b, true), quiet: true})
	request := fmt.Appendf(nil, "POST /api/v1/flows/%s/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"input\":{\"n\":7}}", g.flow(b, "bench"), g.bench)
	var left atomic.Int64
	left.Store(int64(b.N))
	var mu sync.Mutex
	var all []time.Duration
	cpu := cpuTime()
	b.ResetTimer()
	begun := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c := dial(b, g.app.Addr())
			defer c.Close()
			r := bufio.NewReader(c)
			var mine []time.Duration
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				if perSecond > 0 {
					time.Sleep(time.Until(begun.Add(time.Duration(int64(b.N)-n) * time.Second / time.Duration(perSecond))))
				}
				at := time.Now()
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 202 {
					b.Errorf("%s", res.Status)
					return
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	took := time.Since(begun)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/took.Seconds(), "accepted/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*95/100].Microseconds()), "p95-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process has used, clients included.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
