package nodes

import (
	"container/list"
	"sync"
)

// cache keeps what was compiled last, by its source: at most max, the one not used for the longest goes.
type cache[V any] struct {
	max int

	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of *cached[V], the last used one in front
}

type cached[V any] struct {
	key string
	v   V
}

func newCache[V any](max int) *cache[V] {
	return &cache[V]{max: max, byKey: map[string]*list.Element{}, order: list.New()}
}

// get gives what is kept for the key, or what create makes. Failures aren't kept.
func (c *cache[V]) get(key string, create func() (V, error)) (V, error) {
	c.mu.Lock()
	if e := c.byKey[key]; e != nil {
		c.order.MoveToFront(e)
		v := e.Value.(*cached[V]).v
		c.mu.Unlock()
		return v, nil
	}
	c.mu.Unlock()
	v, err := create()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] == nil {
		c.byKey[key] = c.order.PushFront(&cached[V]{key, v})
	}
	for len(c.byKey) > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*cached[V]).key)
	}
	return v, nil
}
