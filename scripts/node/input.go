package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"flowplatform/scripts/internal/spec"
)

// errUsage is an error of whoever wrote the command line.
var errUsage = errors.New("wrong arguments")

// options are what apply and check take.
type options struct {
	Configs string
	JSON    bool
}

func parseOptions(name string, args []string) (options, error) {
	var o options
	flags := quiet(name)
	flags.StringVar(&o.Configs, "configs", spec.Bundles+"/current/configs", "")
	flags.BoolVar(&o.JSON, "json", false, "")
	return o, parse(flags, args)
}

func quiet(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %q is too much", errUsage, flags.Arg(0))
	}
	return nil
}

// largest is more than any Node takes: 10,000 addresses and three PEM blocks.
const largest = 4 << 20

// readNode reads what the host is told to be. An unknown field is an error: a newer operator's wish must not be dropped silently. No error
// shows what was read.
func readNode(in io.Reader) (spec.Node, error) {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return spec.Node{}, fmt.Errorf("%w: the document (spec.Node as JSON) comes on standard input", errUsage)
		}
	}
	var n spec.Node
	decoder := json.NewDecoder(io.LimitReader(in, largest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&n); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return spec.Node{}, fmt.Errorf("standard input is no whole JSON document (%w): was flowcluster interrupted? Run it again", err)
		}
		return spec.Node{}, fmt.Errorf("standard input is no spec.Node: %w; flowcluster and flownode should be of the same bundle", err)
	}
	if err := n.Check(); err != nil {
		return spec.Node{}, fmt.Errorf("what this host is told to be can't be:\n%w", err)
	}
	return n, nil
}
