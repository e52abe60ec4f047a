// Package node is the contract of a node: what a type says about itself (Spec) and how one try of it is executed (Executor).
// The built-in nodes live in services/internal/nodes, one file each; a Catalogue is a value made from an explicit list.
package node

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"flowplatform/services/internal/flow"
)

// Spec is what a node type says about itself. Validation, documentation, JSON Schema, the catalogue and the editor's form are made from it.
type Spec struct {
	Type        string
	Version     int // from 1
	Kind        flow.Kind
	Container   flow.Container // of KindContainer: the engine settles it, it has no executor
	Title       string         // a few words, English
	Description string         // one or two sentences, plain text
	Category    string         // "trigger", "logic", "data", "flow", "integration"
	Config      string         // JSON Schema 2020-12 of the config; additionalProperties false. Expression strings are allowed wherever a value is: the catalogue sees to that
	Output      string         // JSON Schema 2020-12 of the output
	Ports       []string       // fixed ports; empty: main
	PortsFrom   string         // pointer into the config, * for any key or index, of texts that name further ports, before the fixed ones; they are no expressions
	PerItem     []string       // pointers into the config, likewise, of expressions over item and index that the node evaluates itself: flow.Scope.Formulas
	Literal     []string       // pointers into the config, likewise, of texts in another language (SQL, JavaScript): they are never evaluated, so that no value can become code
	Inputs      bool           // it wants Call.Inputs
	Credentials []string       // types of credential (package credential) that its setting "credential" may name; nil: it takes none
	Timeout     time.Duration  // default for one try
	Retry       *flow.Retry    // default; nil: one try
	Examples    []Example      // run by tests
	// Check lists what the schema can't say of a config that fits it. Its strings may still be expressions. nil: nothing.
	Check func(config map[string]any) []flow.Problem
}

// Example is a configuration with what it gives.
type Example struct {
	Title  string
	Config map[string]any
	Input  any
	Output any    // nil when it depends on the outside
	Port   string // "" is main
	Error  string // code of the error that it ends with
	// Of a container: the nodes inside it, and their edges.
	Inside      []flow.Node
	InsideEdges []flow.Edge
}

// Executor does one try of a node. It must return soon after ctx ends. Errors: *Error steers retry and codes; any other error
// counts as retryable with code "error". A panic is caught by the runner and fails the step with code "panic".
type Executor interface {
	Execute(ctx context.Context, call Call) (Result, error)
}

// Call is one try.
type Call struct {
	Execution      string
	Node           string
	Iteration      string
	Try            int
	Timeout        time.Duration  // of the node, or of its type; 0: neither says one
	Attempt        int            // how often the execution was handed out
	Retries        int            // by users, of the whole execution: what a node opened outside before the last of them is over
	IdempotencyKey string         // <execution>/<node>/<iteration or ->, the same over tries, attempts and retries
	Config         map[string]any // expressions evaluated
	Scope          *flow.Scope
	Now            time.Time // the execution's clock; pure nodes use no other
	Seed           uint64
	Log            *slog.Logger
	Limits         Limits
	// Memory takes bytes of the worker's budget for what the try is about to read in, and waits until there are any; the execution holds them until it leaves the worker.
	// A negative number gives back at once what was taken and isn't needed. nil: there is no budget.
	Memory func(ctx context.Context, bytes int) error
	// Inputs are the outputs that came in by the edges that were taken, in the order of the document's edges; only for types whose Spec asks for them.
	Inputs []flow.Input
	// Credential opens the credential that the config's field "credential" names (an id or a name), of one of the types given. What it gives stays in
	// memory. nil where the caller has none to give. Errors are *Error, ready to be returned.
	Credential func(ctx context.Context, types ...string) (Credential, error)
}

// Credential is one that was opened: its public and secret fields together. It prints as nothing that could be read in a log.
type Credential struct {
	ID     string
	Name   string
	Type   string
	Fields map[string]string
}

// String tells the name only.
func (c Credential) String() string { return "credential " + c.Name }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// LogValue is String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON refuses: a credential is never written down.
func (c Credential) MarshalJSON() ([]byte, error) {
	return nil, errors.New("node: a credential is never written as JSON")
}

// Limits of one try.
type Limits struct {
	MaxValueBytes int // an output's size as JSON
}

// Result of a try that succeeded, or opened a wait.
type Result struct {
	Output any
	Port   string // "" is main
	// Wait is opened by nodes of KindWait and KindEffect; output and port of the step are then given by what meets it. Output, where it isn't nil, goes into Wait.Open then, as
	// its field input, or, where it is large, by reference as its field ref.
	Wait *flow.Wait
	Stop bool // the whole execution ends here as succeeded, with Output as its own
}

// Error is a failure that says what it is. Message says what happened, the likely cause and what to do.
type Error struct {
	Code      string
	Message   string
	Retryable bool
	Data      any
	Err       error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Type is a spec with its executor.
type Type struct {
	Spec
	Executor Executor
}
