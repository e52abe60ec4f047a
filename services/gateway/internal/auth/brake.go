package auth

import (
	"sync"
	"time"
)

// brake slows down who guesses passwords: after a few failures each further try must wait, twice as long each time. It counts by address and account
// together (so that nobody can lock another one out), and more loosely by each alone. It holds for this gateway only; several gateways allow a few
// more tries each, which changes nothing.
type brake struct {
	mu      sync.Mutex
	now     func() time.Time
	entries map[string]*failures
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

const (
	brakeFree     = 5  // failures without consequence, for an address and account
	brakeFreeWide = 50 // for an address, or an account, alone
	brakeFirst    = 2 * time.Second
	brakeMost     = 5 * time.Minute
	brakeForget   = 15 * time.Minute
	brakeEntries  = 20_000
)

func newBrake(now func() time.Time) *brake {
	return &brake{now: now, entries: map[string]*failures{}}
}

type guess struct {
	key  string
	free int
}

func guesses(address, account string) [3]guess {
	return [3]guess{{"p" + address + " " + account, brakeFree}, {"a" + address, brakeFreeWide}, {"e" + account, brakeFreeWide}}
}

// wait tells how long the next try must wait; zero: not at all.
func (b *brake) wait(address, account string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var most time.Duration
	for _, g := range guesses(address, account) {
		if f := b.entries[g.key]; f != nil {
			most = max(most, f.until.Sub(b.now()))
		}
	}
	return most
}

// failed counts a failure.
func (b *brake) failed(address, account string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if len(b.entries) > brakeEntries {
		for k, f := range b.entries {
			if now.Sub(f.last) > brakeForget || len(b.entries) > brakeEntries*2 {
				delete(b.entries, k)
			}
		}
	}
	for _, g := range guesses(address, account) {
		f := b.entries[g.key]
		if f == nil || now.Sub(f.last) > brakeForget {
			f = &failures{}
			b.entries[g.key] = f
		}
		f.count++
		f.last = now
		if over := f.count - g.free; over >= 0 {
			f.until = now.Add(min(brakeMost, brakeFirst<<min(over, 10)))
		}
	}
}

// succeeded forgets the failures of an address and account.
func (b *brake) succeeded(address, account string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.entries, guesses(address, account)[0].key)
}
