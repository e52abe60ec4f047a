package nodes

import (
	"testing"

	"flowplatform/services/internal/node"
)

func TestStop(t *testing.T) {
	t.Parallel()
	r, err := stop{}.Execute(t.Context(), node.Call{Config: map[string]any{"output": 7}})
	if err != nil || !r.Stop || r.Output != 7 || r.Port != "" || r.Wait != nil {
		t.Errorf("%+v %v", r, err)
	}
}
