package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/remote"
	"flowplatform/scripts/internal/spec"
)

// What a backup consists of. Restore takes the variables, the settings and the database; the snapshots are for people, by consul snapshot restore and nomad operator
// snapshot restore, when a whole cluster is to be what it was.
const (
	manifestFile  = "backup.json"
	variablesFile = "variables.json"  // Nomad Variables: every secret of the platform
	settingsFile  = "settings.json"   // Consul KV below flow/settings/
	consulFile    = "consul.snap"     //
	nomadFile     = "nomad.snap"      //
	postgresFile  = "postgres.tar.gz" // a base backup with the WAL that it needs
)

const settingsPrefix = "flow/settings/"

// backupManifest says what a backup is of, and what its files were when it was made.
type backupManifest struct {
	Cluster   string            `json:"cluster"`
	Authority string            `json:"authority"` // SHA-256 of ca.pem: which cluster it is, whatever its name
	At        time.Time         `json:"at"`
	Postgres  string            `json:"postgres"` // major version
	Sums      map[string]string `json:"sums"`
}

type setting struct{ Key, Value string } // Value in base64

// backup makes a new directory with everything that can't be made anew. It holds every secret: 0700, and to be kept like the operator's directory.
func backup(ctx context.Context, c *console.Console, dir string, args []string) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return usageError("backup DIR: a directory that isn't there yet")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	target := args[0]
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("%s is there already: a backup goes into a directory of its own", target)
	}
	work := target + ".new" // whole or not at all
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("make the backup's directory: %w", err)
	}
	if err := keys.Private(work); err != nil {
		return err
	}
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	m := backupManifest{Cluster: o.Cluster.Name, At: time.Now().UTC().Truncate(time.Second), Sums: map[string]string{}}
	if m.Authority, err = archive.Sum(o.Keys.Path("ca.pem")); err != nil {
		return fmt.Errorf("the authority: %w", err)
	}
	steps := []struct {
		name string
		do   func(p *console.Part) error
	}{
		{"PostgreSQL", func(p *console.Part) (err error) {
			m.Postgres, err = o.saveDatabase(ctx, p, filepath.Join(work, postgresFile))
			return err
		}},
		{"Variables", func(p *console.Part) error { return saveVariables(ctx, p, g, work) }},
		{"Consul", func(p *console.Part) error {
			return saveSnapshot(ctx, g.Consul, "/v1/snapshot", filepath.Join(work, consulFile))
		}},
		{"Nomad", func(p *console.Part) error {
			return saveSnapshot(ctx, g.Nomad, "/v1/operator/snapshot", filepath.Join(work, nomadFile))
		}},
	}
	for _, s := range steps {
		if err := c.Part(s.name, s.do); err != nil {
			return err
		}
	}
	for _, name := range backupFiles() {
		if m.Sums[name], err = archive.Sum(filepath.Join(work, name)); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := replaceFile(filepath.Join(work, manifestFile), append(b, '\n')); err != nil {
		return err
	}
	if err := os.Rename(work, target); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	c.Line(fmt.Sprintf("\n The backup is in %s. It holds every secret of the platform: keep it like the operator's directory, and together with a copy of that.", target))
	return nil
}

func backupFiles() []string {
	return []string{variablesFile, settingsFile, consulFile, nomadFile, postgresFile}
}

// baseBackup copies a running PostgreSQL: it enters the task's own root and speaks through its socket, as the only user who may.
const baseBackup = `set -eu
pid=$(pgrep -o -x postgres -u postgres) || { echo 'PostgreSQL does not run on this host' >&2; exit 1; }
port=%d
bin=$(dirname "$(readlink /proc/$pid/exe)")
nsenter --target "$pid" --mount --root --wd -S "$(id -u postgres)" -G "$(id -g postgres)" \
  "$bin/pg_basebackup" -h /tmp -p "$port" -U postgres -D - -Ft -X fetch -c fast --no-password | gzip -1
`

// saveDatabase writes a base backup into a file and returns PostgreSQL's major version.
func (o *operator) saveDatabase(ctx context.Context, p *console.Part, file string) (string, error) {
	host, err := o.dataHost(ctx)
	if err != nil {
		return "", err
	}
	bin, err := host.Output(ctx, postgresBin)
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL: %w", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("back PostgreSQL up: %w", err)
	}
	defer f.Close()
	out := &progress{Writer: f, tell: func(n int64) { p.Doing("%d MB", n>>20) }}
	// sh doesn't tell of a failure before the pipe: an archive that has its end and the data's mark is whole.
	if err := host.Run(ctx, remote.Script{Text: fmt.Sprintf(baseBackup, spec.Postgres), Output: out}); err != nil {
		return "", fmt.Errorf("back PostgreSQL up: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("back PostgreSQL up: %w", err)
	}
	if err := checkDatabase(file); err != nil {
		return "", fmt.Errorf("back PostgreSQL up: %w", err)
	}
	p.Done("%.1f MB", float64(out.n)/1e6)
	return filepath.Base(filepath.Dir(bin)), nil
}

// checkDatabase reads a base backup to its end.
func checkDatabase(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("it is empty or cut off: %w", err)
	}
	found := false
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF { //nolint:errorlint // tar returns it as it is
			break
		}
		if err != nil {
			return fmt.Errorf("it is cut off: %w", err)
		}
		found = found || h.Name == "backup_label" || h.Name == "./backup_label"
	}
	if !found {
		return errors.New("it holds no backup_label: what PostgreSQL has sent is no base backup")
	}
	return nil
}

func (o *operator) dataHost(ctx context.Context) (*remote.Host, error) {
	network, err := o.reach()
	if err != nil {
		return nil, err
	}
	host := network.Host(o.with(spec.Data)[0].Name)
	return host, host.Connect(ctx)
}

func saveVariables(ctx context.Context, p *console.Part, g ground.Ground, into string) error {
	var list []struct{ Path string }
	if err := g.Nomad.Get(ctx, "/v1/vars", &list); err != nil {
		return fmt.Errorf("list Nomad's variables: %w", err)
	}
	variables := []ground.Variable{}
	for _, l := range list {
		v, err := g.ReadVariable(ctx, l.Path)
		if err != nil {
			return err
		}
		if v != nil {
			variables = append(variables, ground.Variable{Path: v.Path, Items: v.Items})
		}
	}
	settings := []setting{}
	err := g.Consul.Get(ctx, "/v1/kv/"+settingsPrefix+"?recurse=true", &settings)
	if err != nil && !api.HasStatus(err, http.StatusNotFound) {
		return fmt.Errorf("read the settings in Consul: %w", err)
	}
	for name, content := range map[string]any{variablesFile: variables, settingsFile: settings} {
		b, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return fmt.Errorf("save %s: %w", name, err)
		}
		if err := replaceFile(filepath.Join(into, name), append(b, '\n')); err != nil {
			return err
		}
	}
	p.Done("%d, and %d settings", len(variables), len(settings))
	return nil
}

// saveSnapshot streams a snapshot into a file.
func saveSnapshot(ctx context.Context, client *api.Client, path, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	defer f.Close()
	if err := client.Get(ctx, path, f); err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	return nil
}

// progress tells how much was written through it.
type progress struct {
	io.Writer
	n    int64
	tell func(int64)
}

func (w *progress) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.n += int64(n)
	w.tell(w.n)
	return n, err
}

// restore brings the variables, the settings and the database of a backup into a cluster that has converged, in the place of its own.
func restore(ctx context.Context, c *console.Console, dir string, args []string) error {
	sure := slices.Contains(args, "--yes")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--yes" })
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return usageError("restore [--yes] DIR")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	from := args[0]
	m, err := o.readBackup(from)
	if err != nil {
		return err
	}
	if !sure {
		return fmt.Errorf("this stops the platform and puts the data of %s in the place of what cluster %s has now, which is kept aside on the data host. Say so: restore --yes %s",
			m.At.Format(time.RFC3339), o.Cluster.Name, from)
	}
	unlock, err := o.lock("cluster", func() { c.Line("waiting for another flowcluster that works on the cluster") })
	if err != nil {
		return err
	}
	defer unlock()
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	runner := jobs.Runner{Ground: g}
	for _, st := range jobs.Stopping() {
		if err := c.Part(st.Name, func(p *console.Part) error { return runner.Stop(ctx, p, st.Jobs) }); err != nil {
			return err
		}
	}
	if err := c.Part("Variables", func(p *console.Part) error { return loadVariables(ctx, p, g, from) }); err != nil {
		return err
	}
	if err := c.Part("PostgreSQL", func(p *console.Part) error { return o.loadDatabase(ctx, p, m, filepath.Join(from, postgresFile)) }); err != nil {
		return err
	}
	return o.converge(ctx, c)
}

// readBackup proves that a backup is whole, and of this cluster.
func (o *operator) readBackup(from string) (backupManifest, error) {
	var m backupManifest
	b, err := os.ReadFile(filepath.Join(from, manifestFile))
	if err != nil {
		return m, fmt.Errorf("%s is no backup: %w", from, err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("read %s: %w", filepath.Join(from, manifestFile), err)
	}
	ca, err := archive.Sum(o.Keys.Path("ca.pem"))
	if err != nil {
		return m, fmt.Errorf("the authority: %w", err)
	}
	if m.Authority != ca {
		return m, fmt.Errorf("%s is a backup of cluster %s, made with another operator's directory: take the copy of that one", from, m.Cluster)
	}
	for _, name := range backupFiles() {
		if sum, err := archive.Sum(filepath.Join(from, name)); err != nil || sum != m.Sums[name] {
			return m, fmt.Errorf("%s isn't what it was when the backup was made (%w); take another copy of the backup", filepath.Join(from, name), errors.Join(err))
		}
	}
	return m, nil
}

func loadVariables(ctx context.Context, p *console.Part, g ground.Ground, from string) error {
	var variables []ground.Variable
	var settings []setting
	for name, into := range map[string]any{variablesFile: &variables, settingsFile: &settings} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	for _, v := range variables {
		now, err := g.ReadVariable(ctx, v.Path)
		if err != nil {
			return err
		}
		if now != nil {
			v.ModifyIndex = now.ModifyIndex
		}
		if err := g.WriteVariable(ctx, &v); err != nil {
			return err
		}
	}
	for _, s := range settings {
		value, err := base64.StdEncoding.DecodeString(s.Value)
		if err != nil || !strings.HasPrefix(s.Key, settingsPrefix) {
			return fmt.Errorf("the backup has a setting %q that is none", s.Key)
		}
		if err := g.Consul.Call(ctx, http.MethodPut, "/v1/kv/"+(&url.URL{Path: s.Key}).EscapedPath(), value, nil); err != nil {
			return fmt.Errorf("write the setting %s: %w", s.Key, err)
		}
	}
	p.Done("%d, and %d settings", len(variables), len(settings))
	return nil
}

// unpackDatabase puts a base backup in the place of the data, which is kept aside. Of RabbitMQ's queues nothing is kept: what they hold follows from the database,
// and what was in them is of another time.
const unpackDatabase = `set -eu
volume=%[1]s/volumes/postgres aside=%[1]s/volumes/postgres-before-restore version=%[2]s
if pgrep -x postgres -u postgres >/dev/null; then echo 'PostgreSQL still runs on this host' >&2; exit 1; fi
rm -rf "$volume/.restoring"
mkdir -m 700 "$volume/.restoring"
tar -xzf - -C "$volume/.restoring"
chown -R postgres:postgres "$volume/.restoring"
[ -s "$volume/.restoring/PG_VERSION" ] || { echo 'the backup holds no database' >&2; exit 1; }
rm -rf "$aside"
if [ -d "$volume/$version" ]; then mv "$volume/$version" "$aside"; fi
mv "$volume/.restoring" "$volume/$version"
rm -f "$volume/roles.applied"
rm -rf %[1]s/volumes/rabbitmq/*
`

func (o *operator) loadDatabase(ctx context.Context, p *console.Part, m backupManifest, file string) error {
	host, err := o.dataHost(ctx)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	in := &counter{Reader: f, tell: func(n int64) { p.Doing("%d MB", n>>20) }}
	if err := host.Run(ctx, remote.Script{Text: fmt.Sprintf(unpackDatabase, spec.DataDir, m.Postgres), Input: in}); err != nil {
		return fmt.Errorf("put the database back: %w", err)
	}
	p.Done("what was there before is in %s/volumes/postgres-before-restore on %s", spec.DataDir, host.Name)
	return nil
}
