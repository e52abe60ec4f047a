package protocol

import (
	"cmp"

	"flowplatform/services/internal/flow"
)

// DefaultPool is the pool of whoever names none.
const DefaultPool = "default"

// A run belongs to one pool: that of its task. Effects of another are held until nothing of this one is left to do; then the execution is handed back to the
// queue of theirs, at once: no wait, no slot, no death. Whatever isn't an effect runs anywhere.

// poolOf names the pool whose workers may run a command.
func (r *Run) poolOf(cmd flow.Command) string { return cmp.Or(cmd.Pool, r.home, DefaultPool) }

// foreign tells whether a command is an effect of another pool.
func (r *Run) foreign(cmd flow.Command) bool {
	return cmd.Kind == flow.KindEffect && cmd.Op == flow.OpRun && r.poolOf(cmd) != cmp.Or(r.task.Pool, DefaultPool)
}

// leaves names the pool that the execution must go to: all that is left to do here belongs to others. The first that became ready is served first.
func (r *Run) leaves() string {
	for _, w := range r.ready {
		if !r.foreign(w.cmd) {
			return ""
		}
	}
	if len(r.ready) == 0 {
		return ""
	}
	return r.poolOf(r.ready[0].cmd)
}
