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
// Once a step has failed or stopped the execution nothing new starts, what is in flight ends and is recorded, then it is over.
//
// # Containers
//
// A container (KindContainer) runs the nodes whose parent it is, each time as a small flow with clocks, steps and a failure of its own: a round, in the code a
// frame. The engine settles containers itself; they cost no message. Key.Iteration is the path of round numbers, "3" or "3.0"; a step sees the steps upstream
// of it in its own round, and those upstream of the containers around it.
//
//	foreach  one round an item, `concurrency` [1] at once; item, index. Output: what the rounds gave, in the order of the items.
//	         A round that fails: onItemError fail [default]: the container fails; continue: null stands in the list; collect: {"error": {…}}.
//	while    round after round as long as `condition` holds; in it and inside, item is the output of the round before (null at first), index the round's
//	         number. Still true after `maxRounds` [1000]: it fails with max-rounds, since a loop that ends silently hides a mistake.
//	try      one round; item and index are those around it. Leaves by main with what it gave, or by error with the failure as output. What follows by
//	         finally begins, in either case, when all that follows by main and error, and not by finally, is settled: Compile puts a hidden gate there. A
//	         step that fails behind the port error fails the flow like any other, and finally doesn't begin: put that, too, into a try.
//
//	round:   begun ──all settled──► over: its output is kept, its steps are forgotten (but for the last few, for people)
//	           └──a step fails, and something around takes it──► void: nothing starts; what is in flight ends and is recorded, what hasn't begun is withdrawn,
//	                                                             pauses and waits are forgotten ──nothing in flight──► over
//
// A round's output follows the rule of ends, like an execution's. The list of a container has at most MaxListBytes. A container that fails leaves by its own
// onError; it has no retry and no timeout, those are the nodes' inside.
//
// # Checkpoints
//
// State.Sum gives a list of events that stands for everything before: EventSum, then for each step that has begun what became of it, and for each container
// EventRounds with the results so far, followed by the steps of its rounds that are open or kept. Restore begins at the last EventSum of a list, so a checkpoint
// may replace all that was recorded before it, and its length is that of what the execution holds, not of what it did. Protocol's Run makes one whenever the
// log has doubled.
//
// # Retry and replay
//
// A failure that nothing around the step takes (onError, a try, a loop that collects errors) is deadly: the execution fails at once, through all containers
// around, and everything stays as it is: rounds stay open, and what is in flight ends and is recorded in its place. So a user's retry, EventRetry, can go on
// with it: Restore folds what was recorded before the last EventRetry forgivingly. A step that would fail the execution is then as if it had not been tried, and runs
// again with try 1 when all before the retry is folded; what has succeeded stays, in other rounds too. What waited for the outside (a signal, a child) is opened
// anew, since its other end was closed with the execution: Command.Retries tells it from the one before.
//
// Replay makes the events with which a new execution begins that keeps some steps of an old one: an EventPinned for each, which is kept aside until the
// step's turn comes and settles it in place of running it.
//
// # What makes two computations of the same execution equal
//
// A State is the fold of its events over its Record, so whoever holds these goes on exactly where another stopped. Events of pure nodes may be
// missing: the node is then asked for again and gives the same, because
//
//   - a step sees only steps upstream of it, never a neighbour that happened to end earlier;
//   - its clock (now() and Command.Now) is the time of the last recorded event among those upstream of it, so neither the machine's clock nor
//     the order in which parallel branches ended shows, and a second try sees the same configuration as the first. The first steps of a round have the
//     clock of the rounds before it where only one runs at a time, else that of the container. Waits alone have the execution's clock when they begin: what comes of them is recorded;
//   - what comes in after a round was given up changes no clock and no result;
//   - its random seed is made from the execution's id, its own id, its round, and the place in its configuration.
//
// Which of several steps fails first, where any of them fails the same round, is chance as long as it isn't recorded.
//
// Values are those that DecodeValue gives: nil, bool, int, float64, json.Number, string, []any, map[string]any. Whoever gets one must not change it: constant
// configurations and outputs are shared.
package flow
