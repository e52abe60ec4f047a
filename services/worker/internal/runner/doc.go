// Package runner works on tasks: it takes deliveries by weight, gives each to a protocol.Run, and does for it what it asks: pure nodes at
// once, effects in goroutines, claims and reports in batches.
//
//	buffers high/normal/low ──8:3:1──► hand ──► run (mailbox) ──► pure node, in the same goroutine
//	                                             ▲   │  ├───────► effect, in a goroutine, behind the window
//	           claimed, confirmed, completed,    │   │  ├───────► claims: ≤ 1 ms or 256 into one request
//	           session, cancel, drain: news ─────┘   │  └───────► reports: per shard, ≤ 2 ms, 256 entries or 512 KiB
//	                                                 └──────────► acknowledge, done
//
// A run that waits costs no goroutine. Whoever brings news to a run puts it into the run's mailbox and, when nobody is at work on that run,
// works it off. So methods of protocol.Run are called by one goroutine at a time, in the order of the news, and what they ask for is done
// in that order; and whoever brings news never waits for a run. Deciding belongs to protocol.Run, this package only does.
//
// Hands are goroutines that take deliveries; one of them always waits for the next while others work (leader and followers), so a slow pure
// node holds up nobody, and at full load two or three hands with warm stacks do everything.
package runner
