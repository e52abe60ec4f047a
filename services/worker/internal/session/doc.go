// Package session keeps the worker's right to act: a leased session with its trust window, and the lock file by which a successor in the same
// allocation proves that this process is dead [PROTOCOL 3, 5, 10].
//
//	            file: id written, flock held                    answered
//	(no session) ───────────────────────────► opening ──────────────────────► open ◄──────────┐
//	     ▲                                                                     │              │ a renewal succeeds
//	     │                                                                     │ window ends  │
//	     │                    a renewal (or open) answers "not alive"          ▼              │
//	     └───────────────────────────────────────────────────────────────── closed ───────────┘
//
// Three goroutines share the work so that none can be kept from its duty by another: the keeper opens and renews and does nothing else, the watch
// closes the window on time even while a renewal hangs, and the teller brings the news to the runs, which may take long.
//
// The window is measured on CLOCK_BOOTTIME, from the moment the last successful renewal was sent: that clock goes on while a process is
// stopped and while a machine sleeps. No clock of another host is ever compared.
package session
