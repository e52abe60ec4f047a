package main

import (
	"encoding/json"
	"testing"
	"time"

	"flowplatform/scripts/internal/spec"
)

// A server is left for the next one only when all have been well without a break: what autopilot says right after a restart is what it saw before.
func TestServersMustStayWell(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	var well steady
	for _, step := range []struct {
		after time.Duration
		ok    bool
		long  bool
	}{
		{0, true, false},
		{2 * time.Second, true, false},
		{3 * time.Second, false, false}, // autopilot has noticed the restart: it begins again
		{4 * time.Second, true, false},
		{4*time.Second + staysWell - time.Millisecond, true, false},
		{4*time.Second + staysWell, true, true},
		{5*time.Second + staysWell, false, false},
		{6*time.Second + staysWell, true, false},
	} {
		if got := well.note(step.ok, start.Add(step.after)) >= staysWell; got != step.long {
			t.Errorf("after %s: long enough: %t, want %t", step.after, got, step.long)
		}
	}
}

func TestWhichServerIsUnwell(t *testing.T) {
	t.Parallel()
	servers := []spec.Host{{Name: "s1"}, {Name: "s2"}, {Name: "s3"}}
	for name, tc := range map[string]struct{ said, except, want string }{
		"all well":               {`{"Servers":[{"Name":"s1","Healthy":true,"Voter":true},{"Name":"s2","Healthy":true,"Voter":true},{"Name":"s3","Healthy":true,"Voter":true}]}`, "", ""},
		"Nomad's names":          {`{"Servers":[{"Name":"s1.global","Healthy":true,"Voter":true},{"Name":"s2.global","Healthy":true,"Voter":true},{"Name":"s3.global","Healthy":true,"Voter":true}]}`, "", ""},
		"one without a vote yet": {`{"Servers":[{"Name":"s1","Healthy":true,"Voter":true},{"Name":"s2","Healthy":true,"Voter":false},{"Name":"s3","Healthy":true,"Voter":true}]}`, "", "s2"},
		"one ill":                {`{"Healthy":false,"Servers":[{"Name":"s1","Healthy":true,"Voter":true},{"Name":"s2","Healthy":true,"Voter":true},{"Name":"s3","Healthy":false,"Voter":true}]}`, "", "s3"},
		"the ill one excepted":   {`{"Healthy":false,"Servers":[{"Name":"s1","Healthy":true,"Voter":true},{"Name":"s2","Healthy":true,"Voter":true},{"Name":"s3","Healthy":false,"Voter":true}]}`, "s3", ""},
		"another than excepted":  {`{"Servers":[{"Name":"s1","Healthy":true,"Voter":true},{"Name":"s2","Healthy":true,"Voter":true}]}`, "s1", "s3"},
		"healthy, nobody named":  {`{"Healthy":true}`, "s1", "s2"},
	} {
		var now health
		if err := json.Unmarshal([]byte(tc.said), &now); err != nil {
			t.Fatal(err)
		}
		if got, ill := now.unwell(servers, tc.except); got != tc.want || ill != (tc.want != "") {
			t.Errorf("%s: %q (%t), want %q", name, got, ill, tc.want)
		}
	}
}

func TestWhatIsLeftOnAHostThatIsDrained(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		said         string
		left, others int
	}{
		"nothing":               {`[]`, 0, 0},
		"all have ended":        {`[{"JobType":"service","ClientStatus":"complete"},{"JobType":"system","ClientStatus":"lost"}]`, 0, 0},
		"system jobs alone":     {`[{"JobType":"service","ClientStatus":"complete"},{"JobType":"system","ClientStatus":"running"},{"JobType":"system","ClientStatus":"pending"}]`, 2, 0},
		"a service ends slowly": {`[{"JobType":"service","ClientStatus":"running","DesiredStatus":"stop"},{"JobType":"system","ClientStatus":"running"}]`, 2, 1},
	} {
		var list []drainedTask
		if err := json.Unmarshal([]byte(tc.said), &list); err != nil {
			t.Fatal(err)
		}
		if left, others := stillThere(list); left != tc.left || others != tc.others {
			t.Errorf("%s: %d left, %d of them of other jobs; want %d, %d", name, left, others, tc.left, tc.others)
		}
	}
}
