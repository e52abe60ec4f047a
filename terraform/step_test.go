package terraform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestInterruptedStep: what the next plan reads is what the state has only if the step was done to its end.
func TestInterruptedStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "steps", "host-a")
	step := func(attempt string, command ...string) *exec.Cmd {
		cmd := exec.Command("sh", append([]string{"modules/cluster/step.sh"}, command...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OPERATOR_DIR=" + dir, "STEP=host-a", "ATTEMPT=" + attempt, "FILE=" + file}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	number := func(want string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("the plan reads %q, want %s (%v)", got, want, err)
		}
	}
	if err := step("0", "sh", "-c", `grep -qx 1 "$FILE"`).Run(); err != nil {
		t.Fatalf("while the first runs, the number must differ from the state's: %v", err)
	}
	number("0")
	if err := step("0", "false").Run(); err == nil {
		t.Error("a command that fails must fail the step")
	}
	number("1")
	killed := step("1", "sh", "-c", `kill -KILL 0`)
	if err := killed.Run(); err == nil {
		t.Error("a step that is killed must not succeed")
	}
	number("2")
	// One that a killed Terraform left running ends beside the next: it puts the number that was its own.
	if err := step("2", "sh", "-c", `echo 1 >"$FILE"; exit 1`).Run(); err == nil {
		t.Error("a command that fails must fail the step")
	}
	if err := step("2", "sh", "-c", `grep -qx 3 "$FILE"`).Run(); err != nil {
		t.Errorf("while it runs, the number must differ from the state's: %v", err)
	}
	number("2")
}
