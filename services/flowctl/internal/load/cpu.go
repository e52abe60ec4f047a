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

// Fields of /proc/<pid>/stat behind the name, by proc(5), from 0.
const (
	fieldUser     = 11
	fieldSystem   = 12
	fieldResident = 21
)

// ReadCPU sums what the platform's processes have used.
func ReadCPU() (CPU, error) {
	out := CPU{}
	err := each(func(name string, number func(field int) float64) {
		out[name] += (number(fieldUser) + number(fieldSystem)) / ticksPerSecond
	})
	return out, err
}

// ReadMemory gives the resident MiB of the platform's processes, by program. Pages that processes share count in each of them.
func ReadMemory() (map[string]float64, error) {
	out := map[string]float64{}
	err := each(func(name string, number func(field int) float64) {
		out[name] += number(fieldResident) * float64(os.Getpagesize()) / (1 << 20)
	})
	return out, err
}

// each calls f for every process of a program of the platform.
func each(f func(name string, number func(field int) float64)) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		s := string(b)
		open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		if open < 0 || end < open {
			return fmt.Errorf("%s: not as proc(5) says", path)
		}
		name, ok := programs[s[open+1:end]]
		if !ok {
			continue
		}
		fields := strings.Fields(s[end+1:])
		f(name, func(field int) float64 {
			n, err := strconv.ParseFloat(fields[field], 64)
			if err != nil {
				return 0
			}
			return n
		})
	}
	return nil
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
