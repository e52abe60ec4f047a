// release makes what a cluster is given: the programs for each processor, the jobs and configurations that run them, the installer, a list of everything
// that is in them, and the sums of it all, in one directory and one archive a processor. The same source gives the same bytes, wherever and whenever.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"flowplatform/scripts/internal/bundle"
)

// architectures are those of the machines that a release is for.
var architectures = []string{"amd64", "arm64"}

func main() { os.Exit(run()) }

func run() int {
	version := flag.String("version", "", "of the release, like 1.4.0 or 1.5.0-rc.1")
	out := flag.String("out", "dist", "directory; the release is made in <out>/<version>")
	packages := flag.String("packages", "no", "yes: the bundle has every Debian package that a role needs")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "Usage: make release VERSION=1.4.0 [OUT=dist] [PACKAGES=yes]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if !bundle.VersionPattern.MatchString(*version) {
		fmt.Fprintf(os.Stderr, "release: VERSION=%q is no version: three numbers and at most a suffix, like 1.4.0 or 1.5.0-rc.1\n", *version)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := release{root: ".", version: *version, dir: filepath.Join(*out, *version), archs: architectures, say: func(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }}
	r.bundle = func(ctx context.Context, dir string) error {
		_, err := bundle.NewMaker(r.root, r.version, dir, *packages == "yes", bundle.NewProgress(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())))).Make(ctx)
		return err
	}
	began := time.Now()
	if err := r.make(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		return 1
	}
	fmt.Printf("release %s is in %s (%s)\n", *version, r.dir, time.Since(began).Round(time.Second))
	return 0
}
