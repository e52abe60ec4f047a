package autoscale

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func policy() Policy {
	return Policy{Enabled: true, Min: 2, Max: 10, High: 1000, Low: 100, Drain: 30 * time.Second, DownWindow: 3 * time.Minute}
}

func TestDecide(t *testing.T) {
	// Four workers of 20 slots, an execution takes 100 ms: one ends 140/s at 70 % of its slots.
	calm := Observation{At: noon, Ready: 0, Running: 56, Slots: 80, Workers: 4, Arrival: 560, Completion: 560, Desired: 4, Placed: 4}
	long := State{Begun: noon.Add(-time.Hour), PerSlot: 10}
	seen := func(counts ...int) State { // needs of the last two minutes
		s := long
		for i, n := range counts {
			s.Needs = append(s.Needs, Need{noon.Add(-2*time.Minute + time.Duration(i)*time.Second), n})
		}
		return s
	}
	for name, c := range map[string]struct {
		policy func(*Policy)
		seen   func(*Observation)
		state  State
		count  int
		want   int
		code   Code
		reason string
	}{
		"as it should be":                        {nil, nil, long, 4, 4, Steady, "4.0 are needed"},
		"off":                                    {func(p *Policy) { p.Enabled = false }, func(o *Observation) { o.Ready = 1 << 20 }, long, 4, 4, Off, "AUTO_SCALING_ENABLED"},
		"a burst":                                {nil, func(o *Observation) { o.Ready, o.Running, o.Completion = 20_000, 80, 800 }, long, 9, 9, Up, "20000 wait"},
		"a burst, bounded":                       {func(p *Policy) { p.Max = 6 }, func(o *Observation) { o.Ready = 20_000 }, long, 6, 6, Up, "20000 wait"},
		"a burst at the maximum":                 {func(p *Policy) { p.Max = 4 }, func(o *Observation) { o.Ready = 20_000 }, long, 4, 4, AtMax, "MAX_WORKERS (4)"},
		"what is buffered counts":                {nil, func(o *Observation) { o.Buffered = 20_000 }, long, 9, 9, Up, "20000 wait"},
		"a burst during a deployment":            {nil, func(o *Observation) { o.Ready, o.Deploying = 20_000, true }, long, 4, 9, Deploying, "waits for the deployment"},
		"a burst and no room":                    {nil, func(o *Observation) { o.Ready, o.NoRoom = 20_000, "memory exhausted on 1 node" }, long, 4, 9, NoRoom, "memory exhausted"},
		"a burst, nothing seen":                  {nil, func(o *Observation) { o.Ready, o.Missing = 20_000, "RabbitMQ is away" }, long, 4, 4, Unseen, "RabbitMQ is away"},
		"a burst, nothing has ended":             {nil, func(o *Observation) { o.Ready, o.Completion, o.Arrival = 20_000, 0, 0 }, State{}, 8, 8, Up, "none has ended"},
		"a burst that the formula has in hand":   {func(p *Policy) { p.Drain = 5 * time.Minute }, func(o *Observation) { o.Ready, o.Arrival = 1000, 500 }, long, 4, 4, Steady, "3.6 are needed"},
		"a backlog that stays":                   {nil, func(o *Observation) { o.Ready, o.Arrival = 1500, 0 }, State{Begun: long.Begun, PerSlot: 10, High: noon.Add(-31 * time.Second)}, 6, 6, Up, "less than was thought"},
		"a backlog that stays, just raised":      {nil, func(o *Observation) { o.Ready, o.Arrival = 1500, 0 }, State{Begun: long.Begun, PerSlot: 10, High: noon.Add(-31 * time.Second), Raised: noon.Add(-time.Second)}, 4, 4, Steady, ""},
		"busy without a queue":                   {nil, func(o *Observation) { o.Running, o.Completion, o.Arrival = 72, 720, 720 }, long, 6, 6, Up, "720/s"},
		"between the marks":                      {nil, func(o *Observation) { o.Ready, o.Arrival, o.Running, o.Completion = 500, 100, 20, 200 }, long, 4, 4, Band, "dead band"},
		"no queue, not idle":                     {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion = 300, 50, 500 }, long, 4, 4, Band, "dead band"},
		"idle":                                   {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion = 0, 0, 0 }, long, 2, 2, Down, "no more than 2"},
		"idle, three were needed":                {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion = 0, 0, 0 }, seen(3), 3, 3, Down, "no more than 3"},
		"idle, more were needed":                 {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion = 0, 0, 0 }, seen(5, 3), 4, 4, Window, "which is 5"},
		"idle, a new leader":                     {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion = 0, 0, 0 }, State{}, 4, 4, Window, "only after"},
		"idle during a deployment":               {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion, o.Deploying = 0, 0, 0, true }, long, 4, 2, Deploying, ""},
		"idle and no room":                       {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion, o.NoRoom = 0, 0, 0, "no memory" }, long, 2, 2, Down, ""},
		"idle, a worker is silent":               {nil, func(o *Observation) { o.Arrival, o.Running, o.Completion, o.Partial = 0, 0, 0, "w1 is silent" }, long, 4, 4, Unseen, "w1 is silent"},
		"a burst, a worker is silent":            {nil, func(o *Observation) { o.Ready, o.Partial = 20_000, "w1 is silent" }, long, 9, 9, Up, "20000 wait"},
		"below the minimum":                      {func(p *Policy) { p.Min = 6 }, nil, long, 6, 6, Up, "MIN_WORKERS is 6"},
		"below the minimum, nothing seen":        {func(p *Policy) { p.Min = 6 }, func(o *Observation) { o.Missing = "no report" }, long, 6, 6, Up, "MIN_WORKERS is 6"},
		"above the maximum":                      {func(p *Policy) { p.Max = 3 }, nil, long, 3, 3, Down, "MAX_WORKERS is 3"},
		"above the maximum, nothing seen":        {func(p *Policy) { p.Max = 3 }, func(o *Observation) { o.Missing = "no report" }, long, 4, 4, Unseen, ""},
		"no workers, no work, none needed":       {func(p *Policy) { p.Min = 0 }, func(o *Observation) { *o = Observation{At: noon} }, long, 0, 0, Steady, ""},
		"no workers, first work":                 {func(p *Policy) { p.Min = 0 }, func(o *Observation) { *o = Observation{At: noon, Ready: 5000} }, State{}, 2, 2, Up, ""},
		"all of it is nonsense, and no harm":     {nil, func(o *Observation) { o.Arrival, o.Completion, o.Ready = 1e300, 1e-300, 1<<40 }, State{PerSlot: 1e-300}, 10, 10, Up, ""},
		"the estimate follows what was measured": {nil, func(o *Observation) { o.Completion = 280 }, long, 5, 5, Steady, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, o := policy(), calm
			if c.policy != nil {
				c.policy(&p)
			}
			if c.seen != nil {
				c.seen(&o)
			}
			if name == "the estimate follows what was measured" {
				_, s := Decide(p, o, c.state)
				if s.PerSlot != 9 {
					t.Errorf("a slot ends %v/s", s.PerSlot)
				}
				return
			}
			d, _ := Decide(p, o, c.state)
			if d.Count != c.count || d.Want != c.want || d.Code != c.code || !strings.Contains(d.Reason, c.reason) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestRates(t *testing.T) {
	var r Rates
	standing := 0
	var in, out float64
	for i := range 30 { // 100 come a second, 60 end
		in, out = r.Look(noon.Add(time.Duration(i)*time.Second), standing, 60)
		standing += 40
	}
	if in < 99 || in > 101 || out != 60 {
		t.Errorf("%v come, %v end", in, out)
	}
	if again, _ := r.Look(noon.Add(29*time.Second), standing, 60); again != in {
		t.Errorf("a second look at the same moment gives %v", again)
	}
	for i := range 30 { // nothing comes any more
		in, out = r.Look(noon.Add(time.Duration(30+i)*time.Second), standing, 60)
		standing -= 60
	}
	if in > 1 || out != 60 {
		t.Errorf("%v come, %v end", in, out)
	}
}
