package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is a part of the platform, and what is done to it.
type Kind string

// What a drill does. All come in each drill at least once.
const (
	Worker   Kind = "worker"   // one is killed
	Leader   Kind = "leader"   // the orchestrator that leads is killed
	Gateway  Kind = "gateway"  // one is killed
	RabbitMQ Kind = "rabbitmq" // killed, and started again
	Postgres Kind = "postgres" // killed, and started again
	Consul   Kind = "consul"   // stopped for a while
	Redis    Kind = "redis"    // stopped for a while
)

func kinds() []Kind { return []Kind{Worker, Leader, Gateway, RabbitMQ, Postgres, Consul, Redis} }

// Pauses says whether it is stopped and goes on, not killed.
func (k Kind) Pauses() bool { return k == Consul || k == Redis }

func (k Kind) did() string {
	if k.Pauses() {
		return "stopped"
	}
	return "killed"
}

// Step is one fault of a plan.
type Step struct {
	Kind Kind
	At   time.Duration // after the load's beginning
	Hold time.Duration // how long it is stopped, if it pauses
	Pick int           // which instance: the one at Pick modulo their number, in the order of their names
}

const (
	distance    = 15 * time.Second // between two faults, if there is time: RabbitMQ takes 10 s to boot on a busy machine
	minDistance = 2 * time.Second
)

// Plan lays out the faults of a drill. Nothing happens in the first and in the last calm: the first shows how the platform is when it is well. Kinds come
// in rounds, each in an order of its own; an instant is up to a quarter of the distance late.
func Plan(seed uint64, duration, calm time.Duration) ([]Step, error) {
	all := kinds()
	span := duration - 2*calm
	n := max(len(all), int(span/distance))
	every := span / time.Duration(n)
	if every < minDistance {
		return nil, fmt.Errorf("a drill of %s is too short for %d kinds of faults with %s of calm before and after: it takes %s", duration, len(all), calm, 2*calm+time.Duration(len(all))*minDistance)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	steps := make([]Step, 0, n)
	for len(steps) < n {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, k := range all[:min(len(all), n-len(steps))] {
			s := Step{Kind: k, At: calm + time.Duration(len(steps))*every + time.Duration(r.Int64N(int64(every/4))), Pick: r.IntN(1 << 16)}
			if k.Pauses() {
				s.Hold = every/4 + time.Duration(r.Int64N(int64(every/4)))
			}
			steps = append(steps, s)
		}
	}
	return steps, nil
}
