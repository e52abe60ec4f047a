package jobs

import (
	"encoding/json"
	"testing"
)

func TestPreserveCountsKeepsWhatTheAutoscalerSet(t *testing.T) {
	t.Parallel()
	var spec map[string]any
	if err := json.Unmarshal([]byte(`{"TaskGroups": [{"Name": "worker", "Count": 2}, {"Name": "new", "Count": 1}]}`), &spec); err != nil {
		t.Fatal(err)
	}
	var current Job
	if err := json.Unmarshal([]byte(`{"TaskGroups": [{"Name": "worker", "Count": 7}]}`), &current); err != nil {
		t.Fatal(err)
	}
	preserveCounts(spec, &current)
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"TaskGroups":[{"Count":7,"Name":"worker"},{"Count":1,"Name":"new"}]}`; string(b) != want {
		t.Errorf("spec = %s, want %s", b, want)
	}
}
