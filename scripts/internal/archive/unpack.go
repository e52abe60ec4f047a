package archive

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Limits of what Unpack takes: far above any bundle, far below what a made-up archive could fill a disk with.
const (
	maxBytes = 8 << 30
	maxFiles = 20_000
)

// Unpack unpacks what Pack has packed into a directory that it makes, and compares it with its own list of sums on the way. Only plain files and
// directories below it are taken. When anything is wrong, or it is interrupted, there is no such directory: it is made beside its place and moved there
// when it is whole.
func Unpack(ctx context.Context, file, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("unpack %s: %s is there already", file, dir)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	work, err := os.MkdirTemp(parent, ".unpacking-")
	if err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer in.Close()
	sums, err := extract(ctx, in, work)
	if err != nil {
		return fmt.Errorf("unpack %s: %w; it is not whole or not what make bundle or make release made: fetch or make it again", file, err)
	}
	list, err := os.ReadFile(filepath.Join(work, SumsName))
	if err != nil {
		return fmt.Errorf("unpack %s: there is no %s in it: it was not made by make bundle or make release", file, SumsName)
	}
	want, err := parseSums(list)
	if err != nil {
		return fmt.Errorf("unpack %s: %s: %w", file, SumsName, err)
	}
	delete(sums, SumsName)
	if err := compare(want, sums); err != nil {
		return fmt.Errorf("unpack %s: %w; it was changed after it had been made, or was damaged: fetch or make it again", file, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	return nil
}

// extract writes what a tar.gz holds below a directory and returns the sums of its files.
func extract(ctx context.Context, in io.Reader, dir string) (map[string]string, error) {
	zip, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	sums, left := map[string]string{}, int64(maxBytes)
	for r := tar.NewReader(zip); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if !filepath.IsLocal(name) || filepath.ToSlash(filepath.Clean(name)) != name {
			return nil, fmt.Errorf("it has a file of the name %.200q", h.Name)
		}
		if left -= h.Size; left < 0 || len(sums) >= maxFiles {
			return nil, fmt.Errorf("it holds more than %d GB or %d files", maxBytes>>30, maxFiles)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o755); err != nil {
				return nil, err
			}
		case tar.TypeReg:
			if _, twice := sums[name]; twice {
				return nil, fmt.Errorf("%s is in it twice", name)
			}
			if sums[name], err = extractFile(root, name, h, r); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s is no plain file", name)
		}
	}
	// What follows the tar's end is read, so that the sum at the end of the gzip is compared too.
	if n, err := io.Copy(io.Discard, io.LimitReader(zip, 1<<20)); err != nil {
		return nil, err
	} else if n == 1<<20 {
		return nil, errors.New("something follows the end of what is packed")
	}
	return sums, nil
}

func extractFile(root *os.Root, name string, h *tar.Header, in io.Reader) (sum string, err error) {
	mode := fs.FileMode(0o644)
	if h.Mode&0o100 != 0 {
		mode = 0o755
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, hash), in); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
