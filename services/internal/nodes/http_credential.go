package nodes

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
)

// secretHeader is the key under which a request's context holds the name of the header that carries its credential.
type secretHeader struct{}

// led tells whether a redirect leads, or has led before, to another host, or from https to http.
func led(req *http.Request, via []*http.Request) bool {
	first := via[0].URL
	for _, hop := range append(via[1:len(via):len(via)], req) {
		if hop.URL.Host != first.Host || hop.URL.Scheme != first.Scheme && hop.URL.Scheme != "https" {
			return true
		}
	}
	return false
}

// authorize opens the credential that the config names, and puts it into its header.
func authorize(ctx context.Context, c node.Call, req *http.Request) (*http.Request, error) {
	if name, problem := text(c.Config, node.CredentialSetting); problem != nil {
		return nil, problem
	} else if name == "" {
		return req, nil
	}
	if c.Credential == nil {
		return nil, &node.Error{Code: "credential-unavailable", Retryable: true, Message: "there are no credentials here: is this worker's GATEWAY_URL set?"}
	}
	if req.URL.User != nil {
		return nil, &node.Error{Code: "config", Message: "there is a user in the url and a credential beside it: keep the credential"}
	}
	opened, err := c.Credential(ctx, credential.HTTPBasic, credential.HTTPBearer, credential.HTTPHeader)
	if err != nil {
		return nil, err
	}
	f := opened.Fields
	if !credential.HostAllowed(f["hosts"], req.URL) {
		return nil, &node.Error{Code: "credential-host", Message: fmt.Sprintf("the credential %q may not be sent to %s: its hosts are %s", opened.Name, req.URL.Host, f["hosts"])}
	}
	header, value := "Authorization", ""
	switch opened.Type {
	case credential.HTTPBasic:
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(f["user"]+":"+f["password"]))
	case credential.HTTPBearer:
		value = "Bearer " + f["token"]
	default:
		header, value = http.CanonicalHeaderKey(f["name"]), f["value"]
	}
	if req.Host != "" && !strings.EqualFold(req.Host, req.URL.Host) && f["hosts"] != "" {
		return nil, &node.Error{Code: "credential-host", Message: "a header Host beside a credential with hosts: one of them must go"}
	}
	req.Header.Set(header, value)
	return req.WithContext(context.WithValue(req.Context(), secretHeader{}, header)), nil
}
