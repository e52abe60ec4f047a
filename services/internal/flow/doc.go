// Package flow is the pure engine: what a flow document is, what is wrong with one, and how an execution of it moves. It imports the standard
// library only and does no I/O; it has no clock, no goroutine and no logger. Time comes in with events, commands go out as values, so the same
// code runs in the worker, in the gateway's validation, in the simulator and in tests.
//
//	Parse(JSON) ─► Definition ─► Compile(types, language) ─► Program ─► Start(record) ─► State
//	                                                                 └► Restore(record, events) ─► State
//
// A Program is immutable and shared by all executions of a version. A State is one execution:
//
//	for { for each command in state.Next() { do it, later: state.Apply(event) } }   until state.Outcome() says that it is over
//
// A step moves so:
//
//	pending ──all edges settled, one taken──► ready ──config evaluated──► running ──ok──► succeeded
//	   │                                       ▲                            │ │ └─err, no try left──► failed (fail | continue | route)
//	   └──────── none taken ──► skipped        └── met ◄── sleeping/waiting ◄┘ └─ wait ─► sleeping/waiting ──met──► succeeded
//
// # What makes two computations of the same execution equal
//
// A State is the fold of its events over its Record, so whoever holds these goes on exactly where another stopped. Events of pure nodes may be
// missing: the node is then asked for again and gives the same, because
//
//   - a step sees only steps upstream of it, never a neighbour that happened to end earlier;
//   - its clock (now() and Command.Now) is the time of the last recorded event among those upstream of it, so neither the machine's clock nor
//     the order in which parallel branches ended shows, and a second try sees the same configuration as the first;
//   - its random seed is made from the execution's id, its own id, its round, and the place in its configuration.
//
// Values are those that DecodeValue gives: nil, bool, int, float64, json.Number, string, []any, map[string]any. Whoever gets one must not change it: constant
// configurations and outputs are shared.
package flow
