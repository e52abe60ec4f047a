// bundle makes the one file that a cluster is made of (make bundle), and proves that one is whole (verify). What is in it: package
// scripts/internal/bundle.
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

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/bundle"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "verify" {
		return verify(ctx, os.Args[2:])
	}
	version := flag.String("version", "", "of the bundle, like 1.4.0 or 1.5.0-rc.1")
	out := flag.String("out", "dist", "directory of the bundle")
	packages := flag.String("packages", "no", "yes: with every Debian package that a role needs, for hosts without a network beyond each other")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "Usage: make bundle VERSION=1.4.0 [PACKAGES=yes] [OUT=dist]\n       go run ./scripts/bundle verify FILE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || (*packages != "yes" && *packages != "no") {
		flag.Usage()
		return 2
	}
	m := bundle.NewMaker(".", *version, *out, *packages == "yes", bundle.NewProgress(os.Stdout, term.IsTerminal(int(os.Stdout.Fd()))))
	began := time.Now()
	made, err := m.Make(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bundle: %v\n", err)
		return 1
	}
	fmt.Printf("%s\n   %.1f MB, %s; sha256 %s\n", made.File, float64(made.Size)/1e6, time.Since(began).Round(time.Second), made.Sum)
	return 0
}

// verify unpacks a bundle beside it, compares everything with the sums, and removes it again.
func verify(ctx context.Context, args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "Usage: go run ./scripts/bundle verify FILE")
		return 2
	}
	work, err := os.MkdirTemp(filepath.Dir(args[0]), ".verify-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "bundle: %v\n", err)
		return 1
	}
	defer os.RemoveAll(work)
	m, err := bundle.Open(ctx, args[0], filepath.Join(work, "content"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "bundle: %v\n", err)
		return 1
	}
	sum, err := archive.Sum(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "bundle: %v\n", err)
		return 1
	}
	fmt.Printf("whole: version %s for %s, Consul %s, Nomad %s, %d Debian packages; sha256 %s\n", m.Version, m.Arch, m.Consul, m.Nomad, m.Packages, sum)
	return 0
}
