// Command flowctl is the platform's command line: what a person does with flows, and what scripts do, over the same HTTP API as everyone else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/internal/nodes/script"
)

// commands is the whole command line; kong makes parsing and help from it.
type commands struct {
	Server string `help:"Address of the front door." env:"FLOW_SERVER" placeholder:"URL"`
	Token  string `help:"API token; better in the environment than on the command line, which others can read." env:"FLOW_TOKEN" placeholder:"TOKEN"`
	CAFile string `name:"ca-file" help:"Certificate (PEM) of the authority that the front door's certificate is from; login remembers it." env:"FLOW_CA_FILE" placeholder:"FILE"`
	Output string `short:"o" help:"table for people, json for programs." enum:"table,json" default:"table"`

	Login      loginCommand       `cmd:"" help:"Log in and remember it on this machine."`
	Logout     logoutCommand      `cmd:"" help:"Forget the login of this machine."`
	Whoami     whoamiCommand      `cmd:"" help:"Show the server, the user and the role."`
	TokenShow  tokenCommand       `cmd:"" name:"token" help:"Print the bearer token, for curl."`
	Flow       flowCommands       `cmd:"" help:"Flows: apply, list, get, versions, publish, pause, resume, delete, validate, test."`
	Run        runCommand         `cmd:"" help:"Start a flow."`
	Execution  executionCommand   `cmd:"" help:"Executions: list, get, steps, waits, logs, why, catches, cancel, retry, replay, pause, resume, watch."`
	Signal     signalCommand      `cmd:"" help:"Send a signal to an execution, or to whoever waits for its name and key."`
	Approval   approvalCommand    `cmd:"" help:"Approvals: list, approve, reject."`
	Catalog    catalogCommand     `cmd:"" help:"The node types, or one of them; the schema of flow documents."`
	Credential credentialCommands `cmd:"" help:"Credentials: list, types, create, test, delete."`
	Pause      pauseCommand       `cmd:"" help:"Node types and pools that are paused: list, set, clear."`
	Bulk       bulkCommand        `cmd:"" help:"Jobs over many executions: list, get, results, cancel."`
	Worker     workerCommand      `cmd:"" help:"Workers: list, drain."`
	Queue      queueCommand       `cmd:"" help:"Queues: list."`
	Scaling    scalingCommand     `cmd:"" help:"How many workers there are, how many there should be, and why."`
	Setting    settingCommand     `cmd:"" help:"Settings that can be changed while the platform runs: list, set."`
	Deadletter deadletterCommand  `cmd:"" help:"What could not be processed: list, show, requeue, purge."`
	Remote     remoteCommand      `cmd:"" help:"Workers of your own: list queues and tasks, make tokens."`
	Schedule   scheduleCommand    `cmd:"" help:"Schedules: list, get, create, save, preview, pause, resume, backfill, fires, delete."`
	User       userCommand        `cmd:"" help:"Users: list, create, set, password, delete."`
	APIToken   apiTokenCommand    `cmd:"" name:"apitoken" help:"API tokens for programs: list, create, revoke."`
	Audit      auditCommand       `cmd:"" help:"Who changed what, the newest first."`
	Completion completionCommand  `cmd:"" help:"Print the script that completes flowctl's words in bash, zsh or fish."`
	Dev        devCommand         `cmd:"" help:"The whole platform in this process, for trying flows out; Ctrl-C stops it."`
	Verify     verifyCommand      `cmd:"" help:"Say whether a running cluster is what it should be: quorum, jobs, doors shut, flows of each kind, failover."`
	Bench      benchCommand       `cmd:"" help:"Put load on a running platform through its front door, and measure."`
}

// app is what every command gets.
type app struct {
	ctx    context.Context
	out    io.Writer
	errs   io.Writer
	in     io.Reader
	json   bool
	server string
	token  string
	caFile string
}

// api makes a client of the server that this machine is logged in to.
func (a *app) api() (*client.Client, error) {
	c, err := client.New(a.server, a.token)
	if errors.Is(err, client.ErrNoLogin) {
		return nil, fmt.Errorf("%w: run `flowctl login --server URL`, or set FLOW_SERVER and FLOW_TOKEN", err)
	}
	if err != nil {
		return nil, err
	}
	return c, c.TrustFile(a.caFile)
}

func main() {
	if status, is := script.Child(); is { // one of flowctl dev's own processes, for data.code
		os.Exit(status)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	exit := -1
	parser, err := kong.New(&c, kong.Name("flowctl"), kong.Description("The command line of the flow platform."), kong.UsageOnError(),
		kong.Writers(out, errs), kong.Exit(func(code int) { exit = code }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(errs, "flowctl:", err)
		return 2
	}
	if len(args) > 0 && args[0] == completeWord {
		complete(ctx, parser.Model.Node, args[1:], out)
		return 0
	}
	kctx, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintln(errs, "flowctl:", err)
		return 2
	}
	a := &app{ctx: ctx, out: out, errs: errs, in: in, json: c.Output == "json", server: c.Server, token: c.Token, caFile: c.CAFile}
	if err := kctx.Run(a); err != nil {
		fmt.Fprintln(errs, "flowctl:", err)
		return 1
	}
	return 0
}
