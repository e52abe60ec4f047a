package balance

import (
	"math/rand/v2"
	"slices"
	"testing"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
)

func TestSlots(t *testing.T) {
	for name, c := range map[string]struct {
		strategy string
		workers  []Worker
		want     []int
	}{
		"nobody":                        {settings.RoundRobin, nil, []int{}},
		"alone":                         {settings.RoundRobin, []Worker{{Own: 20}}, []int{0}},
		"round robin, equal":            {settings.RoundRobin, []Worker{{Own: 20}, {Own: 20}, {Own: 20}}, []int{0, 0, 0}},
		"round robin, unequal":          {settings.RoundRobin, []Worker{{Own: 10}, {Own: 15}, {Own: 20}}, []int{0, 10, 10}},
		"round robin, a dwarf":          {settings.RoundRobin, []Worker{{Own: 1}, {Own: 100}, {Own: 100}}, []int{0, 50, 50}},
		"round robin ignores weights":   {settings.RoundRobin, []Worker{{Own: 20, Weight: 9}, {Own: 20, Weight: 1}}, []int{0, 0}},
		"weighted":                      {settings.Weighted, []Worker{{Own: 60, Weight: 1}, {Own: 60, Weight: 2}, {Own: 60, Weight: 3}}, []int{20, 40, 0}},
		"weighted, no weight is one":    {settings.Weighted, []Worker{{Own: 60}, {Own: 60, Weight: 2}}, []int{30, 0}},
		"weighted, a heavy dwarf":       {settings.Weighted, []Worker{{Own: 10, Weight: 3}, {Own: 60, Weight: 1}, {Own: 60, Weight: 2}}, []int{0, 15, 30}},
		"weighted never stops a worker": {settings.Weighted, []Worker{{Own: 10, Weight: 1}, {Own: 10, Weight: 1000}}, []int{1, 0}},
		"least busy, all idle":          {settings.LeastBusy, []Worker{{Own: 20}, {Own: 40}}, []int{0, 0}},
		"least busy, all equally busy":  {settings.LeastBusy, []Worker{{Own: 20, Load: .8}, {Own: 40, Load: .8}}, []int{0, 0}},
		"least busy, one half in use":   {settings.LeastBusy, []Worker{{Own: 20, Load: .5}, {Own: 20}}, []int{10, 0}},
		"least busy, at its limits":     {settings.LeastBusy, []Worker{{Own: 100, Load: 1}, {Own: 100}, {Own: 100}}, []int{5, 0, 0}},
		"least busy, a small change":    {settings.LeastBusy, []Worker{{Own: 100, Load: .55, Tuned: 50}, {Own: 100}}, []int{50, 0}},
		"least busy, a large one":       {settings.LeastBusy, []Worker{{Own: 100, Load: .7, Tuned: 50}, {Own: 100}}, []int{30, 0}},
		"least busy, free again":        {settings.LeastBusy, []Worker{{Own: 100, Tuned: 50}, {Own: 100}}, []int{0, 0}},
		"switched away from least busy": {settings.RoundRobin, []Worker{{Own: 100, Load: .7, Tuned: 50}, {Own: 100}}, []int{0, 0}},
		"an unknown strategy is equal":  {"", []Worker{{Own: 10}, {Own: 15}}, []int{0, 10}},
	} {
		if got := Slots(c.strategy, c.workers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Whatever the workers are: nobody is stopped, nobody has more than its own limit, and what stands once stays.
func TestSlotsHold(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		workers := make([]Worker, 1+random.IntN(8))
		for i := range workers {
			workers[i] = Worker{Own: 1 + random.IntN(2000), Weight: random.IntN(10), Load: random.Float64() * 1.2, Tuned: random.IntN(3000)}
		}
		for _, strategy := range []string{settings.RoundRobin, settings.LeastBusy, settings.Weighted} {
			got := Slots(strategy, workers)
			again := slices.Clone(workers)
			for i, n := range got {
				if n < 0 || n > workers[i].Own {
					t.Fatalf("%s: %d slots for %+v", strategy, n, workers[i])
				}
				again[i].Tuned = n
			}
			if twice := Slots(strategy, again); !slices.Equal(twice, got) {
				t.Fatalf("%s: %v, then %v, for %+v", strategy, got, twice, workers)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		h    protocol.Heartbeat
		want float64
	}{
		{protocol.Heartbeat{CPU: 1, MemoryMB: 500}, 0},
		{protocol.Heartbeat{CPU: 1, CPULimit: 2, MemoryMB: 256, MemoryLimitMB: 1024}, .5},
		{protocol.Heartbeat{CPU: .1, CPULimit: 2, MemoryMB: 768, MemoryLimitMB: 1024}, .75},
		{protocol.Heartbeat{CPU: 9, CPULimit: 2}, 1},
	} {
		if got := Load(c.h); got != c.want {
			t.Errorf("%+v: %v", c.h, got)
		}
	}
}
