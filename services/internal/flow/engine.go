package flow

import (
	"encoding/json"
	"time"
)

// Kind tells the engine and the runner how a node type has to be treated.
type Kind string

const (
	KindTrigger Kind = "trigger" // starts executions; its output is the execution's input
	KindPure    Kind = "pure"    // deterministic and without contact to the outside: costs no message, may be computed again
	KindEffect  Kind = "effect"  // reads or changes anything outside: needs a claim and an open window, is reported
	KindWait    Kind = "wait"    // ends its turn by opening a Wait (delay, approval, signal, children, remote)
	// KindContainer runs the nodes whose parent it is, in rounds. The engine settles it: it has no executor and costs no message.
	KindContainer Kind = "container"
)

// Container says how a container makes its rounds.
type Container string

// The containers. doc.go says what each does.
const (
	Foreach Container = "foreach" // config: items, concurrency, onItemError
	While   Container = "while"   // config: condition (PerItem), maxRounds
	Try     Container = "try"
)

// NodeType is what the engine must know of a node type. The node package makes these from its specs.
type NodeType struct {
	Type      string
	Version   int
	Kind      Kind
	Container Container                            // of KindContainer
	Inputs    bool                                 // its commands carry Inputs
	Ports     func(config map[string]any) []string // the ports that this configuration has; nil: PortMain only
	PerItem   []string                             // pointers into the config, * for any key or index, of what is not evaluated before the node runs: Scope.Formulas has it
	Literal   []string                             // pointers, likewise, of texts in another language, where {{ means nothing to us
	Timeout   time.Duration                        // default for one try; 0: none
	Retry     *Retry                               // default; nil: one try
	// Check returns every problem of a configuration whose strings may still be expressions, pointers relative to the config.
	Check func(config map[string]any) []Problem
}

// Types finds node types; version 0 asks for the newest.
type Types interface {
	Lookup(typ string, version int) (NodeType, bool)
}

// Language compiles what stands between {{ and }}. Implementations are safe for concurrent use. An error that is a *SyntaxError gives its place.
type Language interface {
	Compile(source string) (Expression, error)
}

// Expression is one compiled expression. Eval is deterministic: clock and random seed come from the Scope.
type Expression interface {
	Eval(s *Scope) (any, error)
	// Steps lists the ids of steps that it names (steps.<id>), so that Compile can check that they are upstream.
	Steps() []string
}

// Scope is what an expression sees. It may be read by one goroutine at a time, also after its state has moved on.
type Scope struct {
	Input     any
	Steps     func(id string) (StepView, bool) // false: no such step in scope
	Execution ExecutionView
	Flow      FlowView
	Item      any
	Index     int
	InRound   bool      // Item and Index are set
	Now       time.Time // time of the last recorded event
	Seed      uint64    // differs by execution, node and iteration
	// Formulas are the parts of the config that the node evaluates itself, by their pointers (NodeType.PerItem); the config holds their text.
	Formulas map[string]*Formula
}

// StepView is what steps.<id> shows.
type StepView struct {
	Output any
	Port   string
	Error  *Failure
	Status string // "succeeded", "failed", "skipped"
}

// ExecutionView is what `execution` shows.
type ExecutionView struct {
	ID        string
	CreatedAt time.Time
	Trigger   string
	Labels    map[string]string
	Priority  string
}

// FlowView is what `flow` shows.
type FlowView struct {
	ID      string
	Name    string
	Version int
}

// Record is what an execution knows from its acceptance; with the events it is all that a state is made from.
type Record struct {
	Execution ExecutionView
	Flow      FlowView
	Input     any
	Deadline  time.Time // zero: none
}

// Problem is one thing that is wrong with a document.
type Problem struct {
	Pointer string `json:"pointer"`          // JSON pointer into the document
	Code    string `json:"code"`             // stable, kebab-case: "unknown-node-type", "cycle", …
	Message string `json:"message"`          // what is wrong, and what to do
	Column  int    `json:"column,omitempty"` // where in the string that Pointer names, in characters from 1, when an expression is at fault
}

// SyntaxError is what a Language says of an expression that doesn't compile.
type SyntaxError struct {
	Code    string // of the Problem; "" is "expression"
	Message string
	Offset  int // in characters from the expression's beginning
}

func (e *SyntaxError) Error() string { return e.Message }

// Failure is why a step, or an execution, failed.
type Failure struct {
	Code      string `json:"code"` // stable: "timeout", "http-status", "expression", "poison", …
	Message   string `json:"message"`
	Node      string `json:"node,omitempty"`
	Retryable bool   `json:"retryable,omitempty"`
	Data      any    `json:"data,omitempty"`
}

// Key names one turn of a node: the node, and the path of round numbers when it is inside containers ("" outside, "3" or "3.0" inside).
type Key struct {
	Node      string
	Iteration string
}

// Wait is what a waiting step waits for.
type Wait struct {
	Kind   string    `json:"kind"` // WaitTimer, WaitRetry, WaitSignal, WaitApproval, WaitChildren, WaitRemote
	Due    time.Time `json:"due,omitzero"`
	Key    string    `json:"key,omitempty"`
	Reason string    `json:"reason"`
	// Open is what the platform makes in the transaction in which the wait opens (a child, a task for remote workers), in the words of the wait's kind; nil: nothing.
	Open json.RawMessage `json:"o,omitempty"`
}

// Kinds of waits.
const (
	WaitTimer    = "timer"
	WaitRetry    = "retry"
	WaitSignal   = "signal"
	WaitApproval = "approval"
	WaitChildren = "children"
	WaitRemote   = "remote"
)

// Event is something that happened to a step and is recorded: a state is Start plus the fold of its events.
type Event struct {
	Type      string    `json:"t"` // EventSucceeded and the others
	Node      string    `json:"n"`
	Iteration string    `json:"i,omitempty"`
	Try       int       `json:"try,omitempty"` // 1 is the first
	Port      string    `json:"p,omitempty"`   // "" is PortMain
	Output    any       `json:"o,omitempty"`
	Error     *Failure  `json:"e,omitempty"`
	Wait      *Wait     `json:"w,omitempty"`
	At        time.Time `json:"at"`
	Started   time.Time `json:"s,omitzero"`  // when the try began, for people; no rule reads it
	Pure      bool      `json:"u,omitempty"` // result of a pure node: may also be computed again
	Stop      bool      `json:"x,omitempty"` // with EventSucceeded: the execution ends here, with Output as its own
	Sum       bool      `json:"z,omitempty"` // part of a checkpoint: stands for all that happened to the step so far
	Last      time.Time `json:"l,omitzero"`  // of a checkpoint: the step's clock, where it isn't At
	Rounds    []Round   `json:"q,omitempty"` // with EventRounds: the rounds whose events follow; Output is the list of what all rounds so far gave
}

// Types of events.
const (
	EventSucceeded = "ok"   // Output, Port
	EventFailed    = "err"  // one try failed: Error. Whether it is tried again is the engine's decision, not the event's
	EventWaiting   = "wait" // the step opened Wait
	EventMet       = "met"  // the step's wait was met: Output, Port ("expired" and the like); Error when it was met by a failure
	// EventSum begins a checkpoint: the events up to the next one stand for all that came before. At is the execution's clock.
	EventSum = "sum"
	// EventRounds tells how far a container is.
	EventRounds = "rounds"
	// EventRetry: a user retries the execution. It has no node. What had failed the execution before it is as if it had not been tried; what succeeded stays.
	EventRetry = "retry"
	// EventUndo begins to undo an execution that was cancelled or timed out; one that failed is undone without it. With a Node, in checkpoints: this compensation
	// is to run, should it come to that, with Output as its config.
	EventUndo = "undo"
	// EventPinned: the step counts as done with Output and Port (or Error) when its turn comes, without being run. Replay makes these.
	EventPinned = "pin"
)

// Round is one round of a container in a checkpoint.
type Round struct {
	Number int       `json:"n"`
	Entry  time.Time `json:"at"` // its clock at the beginning
}

// Command is what the engine asks the runner to do for a step.
type Command struct {
	Op      Op
	Key     Key
	Type    string // node type and version, for Run
	Version int
	Kind    Kind
	Config  map[string]any // expressions evaluated
	Timeout time.Duration
	Undo    bool      // it undoes a step, after the execution has come to a bad end
	Pool    string    // of an effect: whose workers may run it; "": those of the flow's pool. Anything else runs anywhere
	Try     int       // 1 is the first
	Retries int       // how often users have retried the execution: what an earlier time opened for this step is over
	Until   time.Time // for Sleep
	Seed    uint64    // for nodes that need randomness or a stable id
	Now     time.Time // the execution's clock, for pure nodes
	Scope   *Scope    // for nodes that evaluate more themselves (data.code)
	Inputs  []Input   // for types that ask for them (NodeType.Inputs)
}

// Input is what came in by one edge that was taken.
type Input struct {
	From   string // node
	Port   string
	Output any
}

// Op is the kind of a Command.
type Op string

const (
	OpRun   Op = "run"   // execute the node once, then Apply EventSucceeded, EventFailed or EventWaiting
	OpSleep Op = "sleep" // a pause of at most MaxSleep inside the process (short back-off, short delay): at Until, Apply EventMet
)

// MaxSleep is the longest pause that a run takes in memory; longer ones suspend the execution.
const MaxSleep = time.Second

// Outcome of an execution, as the engine knows it.
type Outcome string

const (
	Running   Outcome = ""          // something is to be done or in flight
	Suspended Outcome = "suspended" // nothing to do or in flight, waits are open
	Succeeded Outcome = "succeeded"
	Failed    Outcome = "failed"
)
