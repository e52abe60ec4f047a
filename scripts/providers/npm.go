package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// npmFiles downloads a package with npm, which checks its sum against the registry's, and returns the files that are wanted, by path.
func npmFiles(ctx context.Context, of string, want func(path string) bool) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "flow-providers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", dir, of)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("npm pack %s: %w", of, err)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("npm pack %s left no archive", of)
	}
	file, err := os.Open(archives[0])
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of, err)
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", of, err)
		}
		path := strings.TrimPrefix(header.Name, "package/")
		if header.Typeflag != tar.TypeReg || !want(path) {
			continue
		}
		if files[path], err = io.ReadAll(archive); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", of, path, err)
		}
	}
}
