// Package script runs JavaScript for data.code, in processes of its own.
//
// QuickJS bounds memory and stack, and can be interrupted between its instructions, but not within a built-in that works for long on a value that shares parts
// (JSON.stringify of a list that holds itself twice, forty levels deep), and a goroutine can't be killed. So a Host keeps a few child processes, hands each one
// script at a time and kills the one that doesn't answer in time. A child has an empty environment, no files but its pipes, a limit on its memory that the kernel keeps, and is the first to
// go when the machine has none left. Every script gets a virtual machine of its own: nothing of it is left for the next one.
//
// A child is this very program, started under another name: whoever makes a Host must call Child first thing in main.
package script

import "os"

// childName is what a child is called, and how a program knows that it is one.
const childName = "flow-script"

// Child serves scripts and gives the exit status, if this process was started for that. Call it first thing in main.
func Child() (status int, is bool) {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return 0, false
	}
	return serve(os.Stdin, os.Stdout), true
}

// Request is one script with what it sees.
type Request struct {
	Code      string `json:"code"`
	Data      string `json:"data"` // an object as JSON: input, steps, item, index; see encode
	Marked    bool   `json:"marked"`
	Now       int64  `json:"now"` // milliseconds since 1970
	Seed      uint64 `json:"seed,string"`
	MemoryMB  int    `json:"memoryMB"`
	Millis    int64  `json:"millis"` // time that it may take
	MaxOutput int    `json:"maxOutput"`
}

// Kinds of failures.
const (
	Threw    = "threw"    // an exception that the script didn't catch
	Timeout  = "timeout"  // it took too long
	Memory   = "memory"   // more than it may take
	Stack    = "stack"    // endless recursion
	TooLarge = "toolarge" // its output
)

// Response is what came of a script.
type Response struct {
	Output   string   `json:"output"` // JSON, see decode
	Logs     []string `json:"logs,omitempty"`
	Failure  string   `json:"failure,omitempty"` // a kind; "": none
	Message  string   `json:"message,omitempty"`
	Resident int      `json:"resident"` // pages that the child has afterwards
}
