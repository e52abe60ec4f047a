package contract

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Cache is where `go run ./scripts/providers build` puts providers, and Terraform's replacement where there is none.
func Cache() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "flowplatform", "terraform")
}

// Mirror is the directory in which Terraform finds the providers that were built: <host>/<namespace>/<name>/<version>/<system>/<program>.
func Mirror() string { return filepath.Join(Cache(), "mirror") }

// Program is the terraform to run, or OpenTofu, which validates as it does; empty if there is none. FLOW_TERRAFORM says which it shall be.
func Program() string {
	for _, name := range []string{os.Getenv("FLOW_TERRAFORM"), "terraform", "tofu", filepath.Join(Cache(), "tofu")} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Configuration writes what makes Terraform take providers from a mirror and from nowhere else, and returns the variables that name it.
func Configuration(dir, mirror string) ([]string, error) {
	file := filepath.Join(dir, "terraform.rc")
	content := "disable_checkpoint = true\n\nprovider_installation {\n  filesystem_mirror {\n    path = \"" + mirror + "\"\n  }\n}\n"
	if err := os.MkdirAll(mirror, 0o755); err != nil {
		return nil, err
	}
	return []string{"TF_CLI_CONFIG_FILE=" + file, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"}, os.WriteFile(file, []byte(content), 0o600)
}
