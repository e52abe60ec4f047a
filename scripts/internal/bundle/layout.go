// Package bundle is the one file that a cluster is made of: the programs of the platform and of its ground, the jobs and configurations that run them, the
// installer, and, for hosts without a network beyond each other, every Debian package that a role needs. It is made here (make bundle), opened where the
// operator is, pushed from there to every host, and unpacked into images (packer/).
package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"flowplatform/scripts/internal/archive"
)

// Where things are in a bundle.
const (
	VersionFile  = "VERSION"             // the version, and a newline
	ManifestFile = "bundle.json"         // Manifest
	InstallFile  = "install"             // scripts/install, with its pins in hashistack/
	PinsDir      = "hashistack"          //
	BinDir       = "bin"                 // consul, nomad, flownode, flowcluster, flowctl
	ProgramsDir  = "programs"            // gateway, orchestrator, worker, migrate: what Nomad fetches
	JobsDir      = "jobs"                //
	ConfigsDir   = "configs"             //
	SampleFile   = "sample/hello.json"   // the flow that shows that a new cluster works
	PackagesDir  = "debs"                // an apt repository, in a bundle that was made with packages
	DebianFile   = "debs/DEBIAN_VERSION" // of the Debian release that the packages are for, like 12
)

// Manifest says what a bundle is.
type Manifest struct {
	Version  string `json:"version"`
	Arch     string `json:"arch"`             // as Go and Debian name it: amd64, arm64
	Consul   string `json:"consul"`           // versions
	Nomad    string `json:"nomad"`            //
	Debian   string `json:"debian,omitempty"` // the release that the packages are for; "" when there are none
	Packages int    `json:"packages"`         // how many there are
}

// LockFile is left beside bundles: one make bundle works there at a time.
const LockFile = ".bundle.lock"

// VersionPattern is what a version looks like.
var VersionPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// FileName is the bundle's own.
func FileName(version, arch string) string { return "flowplatform-" + version + "-" + arch + ".tar.gz" }

// Open unpacks a bundle into a directory that it makes, proves by its sums that it is whole, and says what it is. When it is not, there is no directory.
func Open(ctx context.Context, file, dir string) (Manifest, error) {
	if err := archive.Unpack(ctx, file, dir); err != nil {
		return Manifest{}, err
	}
	m, err := Read(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		return Manifest{}, err
	}
	return m, nil
}

// Read says what the bundle unpacked in a directory is, without proving that it is whole: archive.Check does.
func Read(dir string) (Manifest, error) {
	content, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if err != nil {
		return Manifest{}, fmt.Errorf("%s is no bundle of the platform: %w; make bundle VERSION=… makes one", dir, err)
	}
	var m Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", filepath.Join(dir, ManifestFile), err)
	}
	version, err := os.ReadFile(filepath.Join(dir, VersionFile))
	if err != nil || strings.TrimSpace(string(version)) != m.Version || !VersionPattern.MatchString(m.Version) {
		return Manifest{}, fmt.Errorf("%s: %s and %s don't name the same version", dir, VersionFile, ManifestFile)
	}
	for _, name := range Expected(m) {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return Manifest{}, fmt.Errorf("the bundle in %s lacks %s", dir, name)
		}
	}
	return m, nil
}
