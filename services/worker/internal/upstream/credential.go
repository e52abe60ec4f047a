package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"flowplatform/services/internal/credential"
)

// maxGateways is how many gateways one question is put to, when those before it don't answer.
const maxGateways = 3

// OpenCredential asks the gateways for a credential with its secret: one after the other, until one knows. A *StatusError is a gateway's answer.
func (c *Client) OpenCredential(ctx context.Context, idOrName string) (o credential.Opened, err error) {
	for range max(1, min(len(c.dir.URLs()), maxGateways)) {
		err = c.post(ctx, "credentials/"+url.PathEscape(idOrName)+"/open", struct{}{}, &o)
		var status *StatusError
		if err == nil || ctx.Err() != nil || errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusConflict) {
			return o, err
		}
	}
	return o, err
}
