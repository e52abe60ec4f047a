package autoscale

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// world is a pool of workers as the loop sees it, second by second: what comes waits, is worked off by those that have begun, and Nomad takes its time.
type world struct {
	arrival  func(s int) float64       // executions a second
	takes    func(workers int) float64 // seconds that one execution takes, with so many workers
	blind    func(s int) bool
	room     int // workers that the machines hold
	deploy   int // seconds that a deployment takes
	begin    int // seconds from a count to the worker's first task
	estimate float64

	desired int
	begun   []int // second in which each worker begins
	waiting float64
	until   int // of the deployment
	history []int
	changes []string
	ups     int
	downs   int
	flaps   int // changes of direction
	last    int
	refused int
}

const slotsEach = 20

// run simulates; it returns the largest backlog and the second in which the backlog was last above the low mark.
func (w *world) run(p Policy, seconds int) (worst float64, busyUntil int) {
	var s State
	s.PerSlot = w.estimate
	var rates Rates
	w.last = 0
	for i := range w.desired {
		_ = i
		w.begun = append(w.begun, -1)
	}
	for second := range seconds {
		at := noon.Add(time.Duration(second) * time.Second)
		placed := min(w.desired, w.room)
		for len(w.begun) > placed {
			w.begun = w.begun[:len(w.begun)-1]
		}
		for len(w.begun) < placed {
			w.begun = append(w.begun, second+w.begin)
		}
		workers := 0
		for _, b := range w.begun {
			if b <= second {
				workers++
			}
		}
		came := w.arrival(second)
		capacity := 0.0
		if workers > 0 {
			capacity = float64(workers*slotsEach) / w.takes(workers)
		}
		ended := min(w.waiting+came, capacity)
		w.waiting += came - ended
		running := 0
		if workers > 0 {
			running = int(math.Round(min(float64(workers*slotsEach), ended*w.takes(workers))))
		}
		worst = max(worst, w.waiting)
		if int(w.waiting) > p.Low {
			busyUntil = second
		}
		o := Observation{At: at, Ready: int(w.waiting), Running: running, Slots: workers * slotsEach, Workers: workers, Desired: w.desired, Placed: placed, Deploying: second < w.until}
		if w.desired > w.room {
			o.NoRoom = "memory is exhausted"
		}
		if w.blind != nil && w.blind(second) {
			o.Missing, o.Ready, o.Running = "RabbitMQ is away", 0, 0
			rates.Forget()
		} else {
			o.Arrival, o.Completion = rates.Look(at, o.Ready+running, ended)
		}
		var d Decision
		d, s = Decide(p, o, s)
		w.refused += btoi(d.Code == Deploying)
		w.act(second, d)
		w.history = append(w.history, w.desired)
	}
	return worst, busyUntil
}

func (w *world) act(second int, d Decision) {
	if d.Count == w.desired {
		return
	}
	way := 1
	if d.Count < w.desired {
		way = -1
		w.downs++
	} else {
		w.ups++
	}
	if w.last != 0 && way != w.last {
		w.flaps++
	}
	w.last = way
	w.changes = append(w.changes, fmt.Sprintf("%ds: %d to %d (%s)", second, w.desired, d.Count, d.Reason))
	w.desired, w.until = d.Count, second+1+w.deploy
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func calmWorld() *world {
	return &world{arrival: func(int) float64 { return 50 }, takes: func(int) float64 { return .1 }, room: 1000, deploy: 2, begin: 1, desired: 2}
}

// Each run counts flaps: changes of direction. One burst is one up and one down, so one flap is what it should be.
func TestSimulation(t *testing.T) {
	minute := 60
	for name, c := range map[string]struct {
		change  func(*world, *Policy)
		minutes int
		check   func(t *testing.T, w *world, worst float64, busyUntil int)
	}{
		"calm": {func(*world, *Policy) {}, 30, func(t *testing.T, w *world, _ float64, _ int) {
			if len(w.changes) != 0 {
				t.Error("it moved")
			}
		}},
		"burst of 20,000": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return 50 + 20_000*float64(btoi(s == 100)) }
		}, 15, func(t *testing.T, w *world, _ float64, busyUntil int) {
			if w.history[101] < 6 || w.flaps != 1 || w.desired != 2 || busyUntil > 100+45 {
				t.Errorf("%d workers a second later, %d flaps, %d at the end, worked off at %d s", w.history[101], w.flaps, w.desired, busyUntil)
			}
		}},
		"sawtooth of 20 s": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return float64(s%20) * 80 }
		}, 30, func(t *testing.T, w *world, worst float64, _ int) {
			if w.flaps > 1 || worst > 5000 {
				t.Errorf("%d flaps, %v waited", w.flaps, worst)
			}
		}},
		"sawtooth of 10 min": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return float64(s%600) * 2 }
		}, 60, func(t *testing.T, w *world, worst float64, _ int) {
			if w.flaps > 12 || worst > 2000 { // up and down once a tooth
				t.Errorf("%d flaps, %v waited", w.flaps, worst)
			}
		}},
		"slow drain": {func(w *world, _ *Policy) { // an hour of arrivals that fall by a little
			w.arrival = func(s int) float64 { return 1200 - float64(s)/3 }
		}, 60, func(t *testing.T, w *world, _ float64, _ int) {
			if w.flaps > 1 || w.desired != 2 || w.downs > 10 {
				t.Errorf("%d flaps, %d downs, %d at the end", w.flaps, w.downs, w.desired)
			}
		}},
		"missing data while it is busy": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return 1000 * float64(btoi(s < 20*minute)) }
			w.blind = func(s int) bool { return s > 5*minute && s < 15*minute }
		}, 30, func(t *testing.T, w *world, _ float64, _ int) {
			for s := 5*minute + 1; s < 18*minute; s++ {
				if w.history[s] < w.history[5*minute] {
					t.Fatalf("down to %d at %d s, without sight or just after", w.history[s], s)
				}
			}
			if w.flaps != 1 || w.desired != 2 {
				t.Errorf("%d flaps, %d at the end", w.flaps, w.desired)
			}
		}},
		"data that comes and goes": {func(w *world, _ *Policy) {
			w.arrival = func(int) float64 { return 1000 }
			w.blind = func(s int) bool { return s > 60 && s%7 < 3 }
		}, 30, func(t *testing.T, w *world, _ float64, _ int) {
			if w.flaps != 0 {
				t.Errorf("%d flaps", w.flaps)
			}
		}},
		"a deployment of 5 minutes": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return 50 + 950*float64(btoi(s >= 100 && s < 600)) }
			w.until = 5 * minute
		}, 20, func(t *testing.T, w *world, _ float64, _ int) {
			if w.history[5*minute-1] != 2 || w.history[5*minute] <= 2 || w.refused < 100 || w.flaps != 1 {
				t.Errorf("%d workers before its end, %d after, refused %d times, %d flaps", w.history[5*minute-1], w.history[5*minute], w.refused, w.flaps)
			}
		}},
		"every count is a slow deployment": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return 50 + 950*float64(btoi(s > 100 && s < 600)) }
			w.deploy = 30
		}, 30, func(t *testing.T, w *world, _ float64, _ int) {
			if w.flaps != 1 || w.desired != 2 {
				t.Errorf("%d flaps, %d at the end", w.flaps, w.desired)
			}
		}},
		"an estimate ten times too high": {func(w *world, _ *Policy) {
			w.estimate = 100
			w.arrival = func(s int) float64 { return 50 + 950*float64(btoi(s > 10 && s < 600)) }
		}, 30, func(t *testing.T, w *world, _ float64, busyUntil int) {
			if w.flaps > 1 || busyUntil > 100 {
				t.Errorf("%d flaps, worked off at %d s", w.flaps, busyUntil)
			}
		}},
		"more workers, less from each": { // a database behind them is the limit: what was measured with two is wrong for ten
			func(w *world, _ *Policy) {
				w.arrival = func(s int) float64 { return 50 + 850*float64(btoi(s > 10 && s < 600)) }
				w.takes = func(n int) float64 { return .1 + .012*float64(n) }
			}, 30, func(t *testing.T, w *world, _ float64, _ int) {
				if w.flaps > 1 || w.desired != 2 {
					t.Errorf("%d flaps, %d at the end", w.flaps, w.desired)
				}
			}},
		"no room": {func(w *world, _ *Policy) {
			w.arrival = func(s int) float64 { return 50 + 20_000*float64(btoi(s == 100)) }
			w.room = 4
		}, 15, func(t *testing.T, w *world, _ float64, _ int) {
			if w.flaps > 1 || w.ups > 2 {
				t.Errorf("%d flaps, %d ups", w.flaps, w.ups)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := calmWorld(), policy()
			c.change(w, &p)
			worst, busyUntil := w.run(p, c.minutes*minute)
			c.check(t, w, worst, busyUntil)
			t.Logf("%d up, %d down, %d flaps; at most %.0f waited", w.ups, w.downs, w.flaps, worst)
			if t.Failed() {
				for _, line := range w.changes {
					t.Log(line)
				}
			}
		})
	}
}
