package archive

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// content is a directory worth packing.
func content(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"bin/program": 0o700, "configs/a.hcl": 0o600, "z": 0o664} {
		write(t, filepath.Join(dir, name), strings.Repeat(name+"\n", 1000))
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteSums(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "packed.tar.gz")
	if err := Pack(t.Context(), dir, "", file, nil); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhatIsPackedIsUnpacked(t *testing.T) {
	t.Parallel()
	file := pack(t, content(t))
	dir := filepath.Join(t.TempDir(), "below", "unpacked")
	if err := Unpack(t.Context(), file, dir); err != nil {
		t.Fatal(err)
	}
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]fs.FileMode{"bin/program": 0o755, "configs/a.hcl": 0o644, "z": 0o644, "bin": fs.ModeDir | 0o755, ".": fs.ModeDir | 0o755} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; wanted %v", name, info.Mode(), err, mode)
		}
	}
	if err := Unpack(t.Context(), file, dir); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("unpacked over what was there: %v", err)
	}
}

func TestTwoOfTheSameGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	a, b := read(t, pack(t, content(t))), read(t, pack(t, content(t)))
	if !bytes.Equal(a, b) {
		t.Error("two directories with the same content give different bytes")
	}
}

func TestCheckNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	dir := content(t)
	write(t, filepath.Join(dir, "z"), "changed")
	write(t, filepath.Join(dir, "new"), "new")
	if err := os.Remove(filepath.Join(dir, "configs/a.hcl")); err != nil {
		t.Fatal(err)
	}
	err := Check(dir)
	for _, want := range []string{"z does not have the sum", "configs/a.hcl is missing", "new is not named"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wanted %q in %v", want, err)
		}
	}
}

// TestADamagedFileIsRefused flips one bit in a hundred places of a packed file, cuts it, and puts into it what no list names: none is unpacked, and nothing
// of it stays.
func TestADamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	whole := read(t, pack(t, content(t)))
	refused := func(what string, damaged []byte, want string) {
		t.Helper()
		parent := t.TempDir()
		file := filepath.Join(t.TempDir(), "damaged.tar.gz")
		write(t, file, string(damaged))
		err := Unpack(t.Context(), file, filepath.Join(parent, "unpacked"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: wanted %q, got %v", what, want, err)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("%s: %s is left", what, left[0].Name())
		}
	}
	// A bit that pads gzip's blocks means nothing: then what is unpacked must be whole.
	tried, taken := 0, 0
	for i := 10; i < len(whole); i += max(1, len(whole)/100) {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		file, dir := filepath.Join(t.TempDir(), "damaged.tar.gz"), filepath.Join(t.TempDir(), "unpacked")
		write(t, file, string(damaged))
		tried++
		if err := Unpack(t.Context(), file, dir); err == nil {
			taken++
			if err := Check(dir); err != nil {
				t.Errorf("byte %d flipped, and unpacked: %v", i, err)
			}
		}
	}
	if tried < 50 || taken > 3 {
		t.Errorf("of %d damaged files %d were unpacked", tried, taken)
	}
	refused("cut", whole[:len(whole)/2], "fetch or make it again")
	refused("cut before its sum", whole[:len(whole)-4], "fetch or make it again")
	refused("empty", nil, "fetch or make it again")

	list := "" + strings.Repeat("0", 64) + "  a\n"
	refused("no list", made(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}), "no "+SumsName)
	refused("another sum", made(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: SumsName, Typeflag: tar.TypeReg, Linkname: list}), "a does not have the sum")
	refused("no such file", made(t, tar.Header{Name: SumsName, Typeflag: tar.TypeReg, Linkname: list}), "a is missing")
	refused("not named", made(t, tar.Header{Name: "b", Typeflag: tar.TypeReg}, tar.Header{Name: SumsName, Typeflag: tar.TypeReg}), "b is not named")
	refused("no list of sums", made(t, tar.Header{Name: SumsName, Typeflag: tar.TypeReg, Linkname: "abc  a\n"}), "line 1 is no sum")
	refused("a way out", made(t, tar.Header{Name: "../a", Typeflag: tar.TypeReg}), `of the name "../a"`)
	refused("a root", made(t, tar.Header{Name: "/etc/a", Typeflag: tar.TypeReg}), `of the name "/etc/a"`)
	refused("a link", made(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), "a is no plain file")
	refused("a device", made(t, tar.Header{Name: "a", Typeflag: tar.TypeBlock}), "a is no plain file")
	refused("twice", made(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}, tar.Header{Name: "a", Typeflag: tar.TypeReg}), "a is in it twice")
	refused("too large", made(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: maxBytes + 1}), "more than 8 GB")
}

// made is an archive of entries; what a plain file holds is in its Linkname.
func made(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, h := range headers {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text, h.Linkname = h.Linkname, ""
			h.Size = max(h.Size, int64(len(text)))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close() // says that what was announced was not written, where that is the point
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
