// Package balance turns a strategy and what is known of the workers of a pool into slots for each: how many executions it may run at once. Workers pull, so
// slots are shares: with work waiting, a worker with twice the slots takes twice as much. It is pure.
//
//	round_robin  equal slots
//	weighted     slots by WORKER_WEIGHT
//	least_busy   slots by free capacity: own limit less what its processor and memory are in use
//
// All three are one rule, slots = min(own limit, weight × k), with another weight. k is as large as it can be without a worker falling short of its share
// (the smallest own limit / weight), so that the worker that is best off keeps its own limit. A dwarf among giants would pull all down to its size; so k is
// at least half of the median's, and who has less than that takes what it can.
//
// Rejected: handing each task to a chosen worker. It costs a hop and a queue for each worker, and who chooses must know first who is alive.
package balance

import (
	"math"
	"slices"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
)

// Worker is what is known of one.
type Worker struct {
	Session protocol.ID
	Own     int // its own limit, MAX_CONCURRENT_FLOWS
	Weight  int
	Load    float64 // 0…1: the larger of processor and memory in use, by what it may use
	Tuned   int     // as it stands; 0: its own limit
}

// busiest is the most that load counts for: a worker at its limits keeps a twentieth of its slots, and is seen to recover.
const busiest = 0.95

// step is the least change for the sake of least_busy, by which slots don't follow every breath.
const step = 0.1

// Slots gives each worker's slots, in the order of the workers; 0: its own limit.
func Slots(strategy string, workers []Worker) []int {
	weights := make([]float64, len(workers))
	ratios := make([]float64, 0, len(workers))
	for i, w := range workers {
		switch strategy {
		case settings.Weighted:
			weights[i] = float64(max(w.Weight, 1))
		case settings.LeastBusy:
			weights[i] = float64(max(w.Own, 1)) * (1 - min(max(w.Load, 0), busiest))
		default:
			weights[i] = 1
		}
		ratios = append(ratios, float64(max(w.Own, 1))/weights[i])
	}
	out := make([]int, len(workers))
	if len(workers) == 0 {
		return out
	}
	slices.Sort(ratios)
	k := max(ratios[0], ratios[(len(ratios)-1)/2]/2)
	for i, w := range workers {
		slots := max(1, int(math.Round(weights[i]*k)))
		if slots >= w.Own {
			slots = 0
		}
		out[i] = settle(strategy, w, slots)
	}
	return out
}

// settle keeps what stands when the change is small: load moves all the time.
func settle(strategy string, w Worker, slots int) int {
	if strategy != settings.LeastBusy || slots == 0 && w.Tuned == 0 {
		return slots
	}
	before, after := orOwn(w.Tuned, w.Own), orOwn(slots, w.Own)
	if math.Abs(float64(before-after)) < max(1, step*float64(w.Own)) && before <= w.Own {
		return w.Tuned
	}
	return slots
}

func orOwn(slots, own int) int {
	if slots == 0 {
		return own
	}
	return slots
}

// Load of a worker, from its health report. What it may use is unknown of older workers: they count as idle.
func Load(h protocol.Heartbeat) float64 {
	load := 0.0
	if h.CPULimit > 0 {
		load = h.CPU / h.CPULimit
	}
	if h.MemoryLimitMB > 0 {
		load = max(load, float64(h.MemoryMB)/float64(h.MemoryLimitMB))
	}
	return min(max(load, 0), 1)
}
