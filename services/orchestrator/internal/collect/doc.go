// Package collect applies the reports of workers to the rows (PROTOCOL 6): for every report queue one loop, batch after batch, in order.
//
//	                 database answers          single active consumer
//	┌──────┐        ┌─────────┐ consume ┌───────────┐  deliveries   ┌────────────┐ commit ┌──────────────┐
//	│ away │ ─────► │ waiting │ ──────► │ gathering │ ────────────► │ committing │ ─────► │ acknowledged │ ─┐
//	└──────┘        └─────────┘         └───────────┘               └────────────┘        └──────────────┘  │
//	   ▲                                      ▲                            │                     followup    │
//	   │ channel closed, back-off             └────────────────────────────┼────────────────────────────────┘
//	   └── PostgreSQL away · commit unknown · a report is missing before one of the batch (come back) · newer schema · channel lost · stop
//
// The one way out is to close the channel: the broker then delivers everything that was not acknowledged again, in order, to whoever comes
// first. basic.cancel over unacknowledged reports would let the next consumer begin behind them; nack puts them behind what is prefetched. A stop
// lets the commit in flight end, acknowledges it, and closes the channel.
//
// While one batch commits, the next is gathered and decoded; two transactions of one shard never run at once. A batch takes what is there: up to
// 512 entries, or what came in 2 ms; after a pause the first message goes at once. What follows a commit (tasks, live events) goes to
// package followup, which never waits; so an acknowledgement never waits for Redis or for the task queues.
//
// Exactly-once comes from the rows, not from here: a redelivered report is old news to its row. Nothing breaks when two collectors of one shard are
// active, as when one was paused before its COMMIT.
package collect
