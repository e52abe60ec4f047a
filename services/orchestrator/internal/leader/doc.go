// Package leader elects one of the orchestrators, by a lock in Consul, and runs the leader's work under a term.
//
//	            ┌───────────────────────────────────────────────────────────────────────┐
//	            ▼                                                                       │
//	        ┌─────────┐ lock is free  ┌───────────┐ lock won  ┌────────────┐ term raised ┌─────────┐
//	Run ──► │ standby │ ────────────► │ candidate │ ────────► │ lease held │ ──────────► │ leading │
//	        └─────────┘               └───────────┘           └────────────┘             └─────────┘
//	            ▲   blocking query          │ lost to another        │ PostgreSQL away        │ window closed · session or
//	            └───────────────────────────┴────────────────────────┴────────────────────────┘ lock lost · stop
//	                                                     work stopped, lock released, session destroyed
//
// The lock is a key held by a Consul session without health checks: only its TTL ends it, so that an agent's restart or a flapping check is
// not a change of leader. Consul frees the lock two TTLs after the last renewal, which bounds a takeover. A stopping leader releases at
// once; the lock delay is one millisecond, since nothing here needs to wait for a leader that is paused: see below.
//
// A leader is never sure that it still leads, so three things bound what it may do:
//
//   - The trust window. Consul promises that a session lives a TTL from its renewal. The window counts from the moment the last
//     renewal that succeeded was sent, on a monotonic clock that also counts while the machine sleeps, and ends a tenth of a TTL earlier. When it
//     closes, the term's context ends; Term.Valid reads the clock itself, for a process that was paused and whose timers have not fired yet.
//   - The term: a number raised in PostgreSQL after the lock is won and before any work begins. Consul's own counters are no fence: LockIndex
//     counts the acquisitions of one key, and goes back when the key is deleted or a snapshot restored.
//   - What leaders write without a fence is compare-and-set on rows (judge, recover, timers, reconciliation): two leaders do no harm there. Fires,
//     scaling and tuning carry the term and are refused by PostgreSQL when it is not the newest.
//
// Work of one term never meets work of the next: Run waits until it has returned before it stands for election again. Renewals have an HTTP
// client of their own, so that nothing else (a blocking query, a full connection pool) can hold them up; an error of Consul is retried until
// the window closes, since servers that elect their own leader answer 500 for a while.
//
// Without Consul nobody is elected and an elected leader steps down when its window closes. Sessions, claims and collectors don't notice.
package leader
