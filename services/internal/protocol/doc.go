// Package protocol is how an execution moves and nothing is lost: rows, messages, and the rules between them. It imports the standard library
// and the pure engine only; the same code runs over PostgreSQL and RabbitMQ, and in the simulator beside it (package sim).
//
//	          accept              claim              report: final
//	(none) ──────────► queued ───────────► running ─────────────────► succeeded | failed | cancelled | timed_out
//	                     ▲  ▲                 │  │
//	                     │  └── yield,        │  └─ report: step (stays running)
//	                     │      recover ◄─────┤
//	                     │ wake               ▼ report: suspend
//	                     └────────────────  waiting
//
// An execution without effects goes from queued to its end, or to waiting, without a claim.
//
// Layers, each calling only the ones before it:
//
//   - row.go, messages.go: the rows and the messages (schema v1).
//   - rules.go: what one event does to one row, as methods of *Row. Pure.
//   - scripts.go: what one transaction does, over the small interface Tx: lock by id, look, decide, write.
//   - run.go: the worker's side of one delivery, as a state machine.
//   - collect.go, judge.go: the loops of orchestrators, one step each.
//
// The row is the truth; messages are invitations and news. Any message may come twice, late, or (a task, or a report that was not
// confirmed) never. One promise rests on the broker: a confirmed report stays in its queue, in order.
package protocol
