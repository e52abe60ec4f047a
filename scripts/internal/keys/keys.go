// Package keys keeps the keys of a cluster in the operator's own directory: the authority that signs every certificate, gossip keys, and the tokens of Consul
// and Nomad. All of it is made there, before it is used: the authority's key is never on a server, and no interruption can leave a cluster whose administrator's
// token nobody knows. Files are 0600 in directories of 0700; nothing here prints a secret or takes one as an argument.
//
//	ca.pem ca-key.pem           the authority
//	operator.pem operator-key.pem   with which the operator's own programs show themselves to Consul and Nomad
//	front-door.pem front-door-key.pem   of the address that users know
//	hosts/<name>.pem hosts/<name>-key.pem
//	gossip.json tokens.json     by name
//	login.json                  the platform's first user, written when it is made
package keys

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
)

// Keys is the directory of one cluster.
type Keys struct{ dir string }

// Open makes the directory, or refuses one that others can look into.
func Open(dir string) (*Keys, error) {
	if err := Private(dir); err != nil {
		return nil, err
	}
	if err := Private(filepath.Join(dir, "hosts")); err != nil {
		return nil, err
	}
	return &Keys{dir: dir}, nil
}

// Private makes a directory for its owner alone; one that is there must be so already: whoever could look into it may have done so.
func Private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for keys: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory of its own (a link would lead keys somewhere else); name another", dir)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: keys are kept in a directory of one's own", dir, stat.Uid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("others can look into %s (mode %04o): chmod 700 %s, or name a directory that isn't there yet", dir, mode, dir)
	}
	return nil
}

// Path is where a file of the directory is.
func (k *Keys) Path(name string) string { return filepath.Join(k.dir, name) }

// Lock keeps other programs from making keys at the same time: hosts are applied side by side.
func (k *Keys) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(k.Path(".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the keys: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the keys: %w", err)
	}
	return func() { f.Close() }, nil
}

// Gossip are the keys of Consul's and Nomad's gossip.
type Gossip struct {
	Consul string `json:"consul"`
	Nomad  string `json:"nomad"`

	// What a rotation that is under way will put in their place.
	ConsulNext string `json:"consul_next,omitempty"`
	NomadNext  string `json:"nomad_next,omitempty"`
}

// Gossip returns the gossip keys; they are made when they aren't there.
func (k *Keys) Gossip() (Gossip, error) {
	var g Gossip
	err := k.ReadJSON("gossip.json", &g)
	if err == nil && g.Consul != "" && g.Nomad != "" {
		return g, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return g, err
	}
	for _, key := range []*string{&g.Consul, &g.Nomad} {
		if *key == "" {
			*key = GossipKey()
		}
	}
	return g, k.WriteJSON("gossip.json", g)
}

// GossipKey draws a key for Consul's or Nomad's gossip.
func GossipKey() string {
	b := make([]byte, 32)
	rand.Read(b) // it never fails: the program ends if the system has no randomness
	return base64.StdEncoding.EncodeToString(b)
}

// Tokens returns the secret of each named token; those that aren't there are made, and written down before anybody gets to see them.
func (k *Keys) Tokens(names ...string) (map[string]string, error) {
	all := map[string]string{}
	if err := k.ReadJSON("tokens.json", &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	before := len(all)
	tokens := map[string]string{}
	for _, name := range names {
		if all[name] == "" {
			all[name] = UUID()
		}
		tokens[name] = all[name]
	}
	if len(all) == before {
		return tokens, nil
	}
	return tokens, k.WriteJSON("tokens.json", all)
}

// AllTokens returns every token that is written down.
func (k *Keys) AllTokens() (map[string]string, error) {
	all := map[string]string{}
	if err := k.ReadJSON("tokens.json", &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// SetTokens writes new secrets down, and forgets those whose secret is "".
func (k *Keys) SetTokens(changed map[string]string) error {
	all := map[string]string{}
	if err := k.ReadJSON("tokens.json", &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	maps.Copy(all, changed)
	maps.DeleteFunc(all, func(_, secret string) bool { return secret == "" })
	return k.WriteJSON("tokens.json", all)
}

// UUID draws the secret of a token, in the only shape that Consul and Nomad take.
func UUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ReadJSON reads a file of the directory; fs.ErrNotExist says that there is none.
func (k *Keys) ReadJSON(name string, into any) error {
	b, err := os.ReadFile(k.Path(name))
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read %s: %w; it was changed by hand: bring it back from a copy", k.Path(name), err)
	}
	return nil
}

// WriteJSON replaces a file of the directory.
func (k *Keys) WriteJSON(name string, content any) error {
	b, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return k.Write(name, append(b, '\n'))
}

// Write replaces a file of the directory whole, and returns when it is on the disk: what is written here may be in use on a server a moment later.
func (k *Keys) Write(name string, content []byte) error {
	path := k.Path(name)
	if err := write(path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func write(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone under this name when all went well
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Remove removes files of the directory that are there.
func (k *Keys) Remove(names ...string) error {
	var wrong error
	for _, name := range names {
		if err := os.Remove(k.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			wrong = errors.Join(wrong, err)
		}
	}
	return wrong
}
