package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"flowplatform/scripts/internal/api"
)

// BootstrapNomad makes the operator's management token the first one of the cluster. It returns false when it was so already.
func BootstrapNomad(ctx context.Context, nomad *api.Client, secret string) (bool, error) {
	err := nomad.Get(ctx, "/v1/acl/token/self", nil)
	if err == nil {
		return false, nil
	}
	if !api.HasStatus(err, http.StatusForbidden) && !api.HasStatus(err, http.StatusNotFound) {
		return false, fmt.Errorf("ask Nomad who we are: %w", err)
	}
	err = nomad.Call(ctx, http.MethodPost, "/v1/acl/bootstrap", map[string]string{"BootstrapSecret": secret}, nil)
	var refused *api.StatusError
	if errors.As(err, &refused) && strings.Contains(refused.Body, "already done") {
		return false, errors.New("Nomad has a management token, and it isn't the one in this operator's directory: take the directory with which the cluster was made " +
			"(a copy of keys/tokens.json), or reset it: https://developer.hashicorp.com/nomad/docs/secure/acl/bootstrap")
	}
	if err != nil {
		return false, fmt.Errorf("bootstrap Nomad's ACL: %w", err)
	}
	return true, nil
}

// nomadACL is one of Nomad's policies, given to a job's workload identity.
type nomadACL struct {
	Name, Description, Rules string
	JobACL                   *jobACL
}

type jobACL struct{ Namespace, JobID, Group, Task string }

// ApplyNomad gives the orchestrators' workload identity its rights. It returns whether that changed anything.
func ApplyNomad(ctx context.Context, nomad *api.Client) (bool, error) {
	wanted := nomadACL{
		Name: "flow-orchestrator", Description: "reads jobs and scales them", Rules: orchestratorNomadPolicy,
		JobACL: &jobACL{Namespace: "default", JobID: "orchestrator"},
	}
	path := "/v1/acl/policy/" + wanted.Name
	var now nomadACL
	err := nomad.Get(ctx, path, &now)
	if err != nil && !api.HasStatus(err, http.StatusNotFound) {
		return false, fmt.Errorf("read Nomad's policy %s: %w", wanted.Name, err)
	}
	if err == nil && now.JobACL != nil && *now.JobACL == *wanted.JobACL && now.Rules == wanted.Rules && now.Description == wanted.Description {
		return false, nil
	}
	if err := nomad.Call(ctx, http.MethodPost, path, wanted, nil); err != nil {
		return false, fmt.Errorf("write Nomad's policy %s: %w", wanted.Name, err)
	}
	return true, nil
}
