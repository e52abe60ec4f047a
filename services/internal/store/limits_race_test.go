package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"flowplatform/services/internal/protocol"
)

// racing is a publisher behind which executions run, and that counts them by key.
type racing struct {
	b *bundle
	t *testing.T

	mu      sync.Mutex
	running map[string]int
	key     map[protocol.ID]string
	begun   map[protocol.ID]bool
	over    string
	ended   chan protocol.ID
	left    atomic.Int64
}

func (p *racing) know(id protocol.ID, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key[id] = key
	p.left.Add(1)
}

func (p *racing) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	out := make([]bool, len(tasks))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range tasks {
		out[i] = true
		if p.begun == nil {
			p.begun = map[protocol.ID]bool{}
		}
		if p.begun[t.ID] {
			continue
		}
		p.begun[t.ID] = true
		if p.running[p.key[t.ID]]++; p.running[p.key[t.ID]] > 2 {
			p.over = fmt.Sprintf("%d run with %s", p.running[p.key[t.ID]], p.key[t.ID])
		}
		p.ended <- t.ID
	}
	return out
}

func (p *racing) end(id protocol.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[p.key[id]]--
}
