// Package chaos is a drill: under steady load it breaks one part of a running platform after the other, and counts from outside whether the
// promises held: what was accepted became final, and no confirmed step ran again.
//
// It doesn't know how the platform runs. Who holds a drill breaks and mends through one function: scripts/chaos the platform that make up started
// (make chaos), services/e2e one of plain processes (TestChaosShort). The order of the faults, their instants and which instance they hit follow from
// a seed; what the platform makes of them doesn't.
//
// Three witnesses, none of which is the platform's own word about itself: the HTTP server that the flows call counts each call by Idempotency-Key and
// attempt (Target); the client counts what it was told (load); PostgreSQL is read once everything is over (ledger). The clocks of all three are this
// machine's, so their times compare.
//
// The load generator of make bench isn't used: it is built to cost nothing at thousands a second and forgets which request became which execution. Here
// each request counts, at tens a second.
package chaos
