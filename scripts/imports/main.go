// Command imports proves the import rules of the tree: what is pure stays pure, and each client library has one owner. It
// prints every import that breaks a rule and fails if there is one.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() { os.Exit(run()) }

func run() int {
	packages, err := list("./services/...")
	if err != nil {
		fmt.Fprintf(os.Stderr, "imports: %v\n", err)
		return 2
	}
	found := violations(packages, theRules())
	for _, v := range found {
		fmt.Fprintln(os.Stderr, v)
	}
	if len(found) > 0 {
		return 1
	}
	return 0
}

// list asks go for packages and all that they depend on.
func list(pattern string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", pattern)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var packages []pkg
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: read its answer: %w", err)
		}
		packages = append(packages, p)
	}
}
