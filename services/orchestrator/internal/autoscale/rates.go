package autoscale

import (
	"math"
	"time"
)

// settling is how fast rates follow: half of a change is seen after it.
const settling = 2 * time.Second

// Rates makes arrivals and completions a second of counts that are looked at again and again. What came is what was ended and what waits and runs more
// than before, so that no counter at the door is needed.
type Rates struct {
	at         time.Time
	standing   int // backlog and running
	arrival    float64
	completion float64
}

// Look takes the present counts. ended is how many executions a second have ended since the last look, by the workers' own count.
func (r *Rates) Look(at time.Time, standing int, ended float64) (arrival, completion float64) {
	if r.at.IsZero() {
		r.at, r.standing, r.completion, r.arrival = at, standing, ended, ended
		return r.arrival, r.completion
	}
	apart := at.Sub(r.at).Seconds()
	if apart <= 0 {
		return max(r.arrival, 0), r.completion
	}
	came := ended + float64(standing-r.standing)/apart
	share := 1 - math.Exp2(-apart/settling.Seconds())
	r.completion += share * (ended - r.completion)
	r.arrival += share * (came - r.arrival)
	r.at, r.standing = at, standing
	return max(r.arrival, 0), r.completion
}

// Forget begins anew, after a time without sight.
func (r *Rates) Forget() { *r = Rates{} }
