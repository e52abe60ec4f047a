package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// CPU is the processor time that the processes of this machine have used so far, in seconds by program.
type CPU map[string]float64

// programs of the platform, by the name that the kernel shows.
var programs = map[string]string{
	"gateway": "gateway", "orchestrator": "orchestrator", "worker": "worker", "flowctl": "load generator", "nginx": "nginx",
	"postgres": "postgresql", "beam.smp": "rabbitmq", "redis-server": "redis", "consul": "consul", "nomad": "nomad",
}

const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on

// ReadCPU sums what the platform's processes have used.
func ReadCPU() (CPU, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	out := CPU{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		s := string(b)
		open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		if open < 0 || end < open {
			return nil, fmt.Errorf("%s: not as proc(5) says", path)
		}
		name, ok := programs[s[open+1:end]]
		if !ok {
			continue
		}
		f := strings.Fields(s[end+1:])
		for _, i := range []int{11, 12} { // utime, stime
			n, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			out[name] += n / ticksPerSecond
		}
	}
	return out, nil
}

// Since gives milliseconds by program for each of n executions.
func (c CPU) Since(before CPU, n int) map[string]float64 {
	out := map[string]float64{}
	for name, s := range c {
		if d := s - before[name]; d > 0 && n > 0 {
			out[name] = d * 1000 / float64(n)
		}
	}
	return out
}
