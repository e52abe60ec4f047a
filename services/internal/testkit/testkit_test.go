package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestWhatTestBinariesLeave(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		fmt.Sprintf("%d-123", gone.Process.Pid): true,
		fmt.Sprintf("%d-123", os.Getpid()):      false,
		"1234567890":                            false, // no number of a process
		"x-1":                                   false,
	} {
		if left(name) != want {
			t.Errorf("%s is left behind: %v", name, !want)
		}
	}
}
