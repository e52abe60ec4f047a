package jobs

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/ground"
)

// A release that Nomad has taken back is healthy again, and an error all the same; one that the autoscaler has changed since is none.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	nomad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/job/gateway":
			fmt.Fprint(w, `{"ID": "gateway", "Version": 5}`)
		case "/v1/job/gateway/deployments":
			fmt.Fprint(w, `[{"JobVersion": 5, "Status": "successful"}, {"JobVersion": 4, "Status": "failed", "StatusDescription": "Failed due to progress deadline - rolling back to job version 3"},
				{"JobVersion": 3, "Status": "successful"}]`)
		case "/v1/job/gateway/allocations":
			fmt.Fprint(w, `[]`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer nomad.Close()
	r := Runner{Ground: ground.Ground{Nomad: api.New(nomad.URL, api.NomadToken, "")}}
	for version, want := range map[uint64]string{3: "", 4: "rolling back to job version 3", 5: "", 6: ""} {
		err := r.takenBack(t.Context(), "gateway", version)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: %v, want %q", version, err, want)
		}
	}
}
