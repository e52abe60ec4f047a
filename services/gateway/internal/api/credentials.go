package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/gateway/internal/vault"
	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const tagCredentials = "Credentials"

// Who may what. A flow's author chooses among credentials and sees what they are for; only who answers for the platform decides which secrets there are and to which
// servers they may go, because whoever changes that could have them sent anywhere.
const (
	usesCredentials  = auth.Editor
	writesCredential = auth.Admin
)

// Credential is a credential without its secret.
type Credential struct {
	ID        string         `json:"id" format:"uuid"`
	Name      string         `json:"name"`
	Type      string         `json:"type" doc:"One of GET /catalog/credentials"`
	Public    map[string]any `json:"public" doc:"The fields that may be shown"`
	Secret    []string       `json:"secret" nullable:"false" doc:"Names of the secret fields of this type; what they hold never comes back"`
	KeyID     string         `json:"keyId" doc:"Names the master key that it is encrypted with"`
	Revision  int            `json:"revision" doc:"Raised by every change; the ETag"`
	CreatedAt time.Time      `json:"createdAt"`
	UpdatedAt time.Time      `json:"updatedAt"`
}

// CredentialBody is what a credential is made of.
type CredentialBody struct {
	Name   string         `json:"name" minLength:"1" maxLength:"100" doc:"Letters, digits, spaces and . _ -; unique. Flows name it"`
	Type   string         `json:"type,omitempty" maxLength:"50" doc:"One of GET /catalog/credentials; it never changes"`
	Public map[string]any `json:"public,omitempty" doc:"By the schema public of its type"`
	Secret map[string]any `json:"secret,omitempty" doc:"By the schema secret of its type. When saving: absent keeps the old one, given replaces all of it"`
}

// CredentialRef is a credential in a path.
type CredentialRef struct {
	ID string `path:"id" maxLength:"400" doc:"Id of the credential, or its name (percent-encoded)"`
}

// Trial is what came of trying a credential out.
type Trial struct {
	Outcome      string `json:"outcome" enum:"works,fails,untested" doc:"untested: its type names no server; a flow shows whether it works"`
	Message      string `json:"message"`
	Milliseconds int64  `json:"milliseconds"`
}

// Resealed says how far the change of the master key has come.
type Resealed struct {
	KeyID  string   `json:"keyId" doc:"The current key"`
	Done   int      `json:"done" doc:"Encrypted anew by this call"`
	Fine   int      `json:"fine" doc:"Had the current key already"`
	Failed []string `json:"failed" nullable:"false" doc:"Names of those that could not be opened, or were changed meanwhile"`
}

type credentialOutput struct {
	ETag         string `header:"ETag"`
	Location     string `header:"Location"`
	CacheControl string `header:"Cache-Control"`
	Body         Credential
}

type saveCredentialInput struct {
	CredentialRef
	IfMatch string `header:"If-Match" doc:"ETag that the credential must still have (412 otherwise); absent: whatever it has"`
	Body    CredentialBody
}

func (a *API) credentialRoutes() {
	const bytes = 128 << 10
	route(a, auth.Viewer, huma.Operation{OperationID: "listCredentialTypes", Method: http.MethodGet, Path: "/catalog/credentials", Tags: []string{"Catalogue"}, Summary: "List the types of credentials, with JSON Schemas of their public and secret fields"},
		func(context.Context, *struct{}) (*struct{ Body List[credential.View] }, error) {
			return &struct{ Body List[credential.View] }{List[credential.View]{Items: credential.Views()}}, nil
		})
	route(a, usesCredentials, huma.Operation{OperationID: "listCredentials", Method: http.MethodGet, Path: "/credentials", Tags: []string{tagCredentials}, Summary: "List credentials, the newest first; never their secrets"},
		func(ctx context.Context, in *struct {
			Page
			Type []string `query:"type" maxItems:"20" doc:"Only these types, by comma"`
		}) (*listOutput[Credential], error) {
			rows, next, err := a.o.DB.ListCredentials(ctx, in.Type, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewCredential), nil
		})
	route(a, writesCredential, huma.Operation{OperationID: "createCredential", Method: http.MethodPost, Path: "/credentials", Tags: []string{tagCredentials}, Summary: "Store a credential", DefaultStatus: http.StatusCreated, MaxBodyBytes: bytes}, a.createCredential)
	route(a, usesCredentials, huma.Operation{OperationID: "getCredential", Method: http.MethodGet, Path: "/credentials/{id}", Tags: []string{tagCredentials}, Summary: "Show a credential without its secret"},
		func(ctx context.Context, in *CredentialRef) (*credentialOutput, error) {
			c, err := a.credential(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return answerCredential(&c), nil
		})
	route(a, writesCredential, huma.Operation{OperationID: "saveCredential", Method: http.MethodPut, Path: "/credentials/{id}", Tags: []string{tagCredentials}, Summary: "Change a credential", MaxBodyBytes: bytes,
		Description: "Without secret the old one stays; a field that says where the secret goes (x-target in its schema) only changes together with the secret. Workers see the change within 30 seconds."}, a.saveCredential)
	route(a, writesCredential, huma.Operation{OperationID: "deleteCredential", Method: http.MethodDelete, Path: "/credentials/{id}", Tags: []string{tagCredentials}, Summary: "Delete a credential", DefaultStatus: http.StatusNoContent,
		Description: "Steps that need it fail from then on; workers may use it for 30 seconds more."}, a.deleteCredential)
	route(a, usesCredentials, huma.Operation{OperationID: "testCredential", Method: http.MethodPost, Path: "/credentials/{id}/test", Tags: []string{tagCredentials}, Summary: "Try a credential out: connect to its server, for at most ten seconds"}, a.testCredential)
	route(a, writesCredential, huma.Operation{OperationID: "resealCredentials", Method: http.MethodPost, Path: "/credentials/reseal", Tags: []string{tagCredentials}, Summary: "Encrypt all credentials anew with the current master key",
		Description: "When CREDENTIALS_KEY has a new key in front, at all gateways. The old key can be taken away when nothing has failed."}, a.resealCredentials)
	a.router.Post("/internal/v1/credentials/{id}/open", a.openCredential)
}

func viewCredential(c *store.Credential) Credential {
	out := Credential{ID: c.ID.String(), Name: c.Name, Type: c.Type, Public: publicOf(c), Secret: []string{}, KeyID: c.KeyID, Revision: c.Revision, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt}
	if t, ok := credential.Find(c.Type); ok {
		out.Secret = t.SecretFields()
	}
	return out
}

func publicOf(c *store.Credential) credential.Values {
	out := credential.Values{}
	if len(c.Public) > 0 {
		_ = json.Unmarshal(c.Public, &out) // a row that somebody else wrote: it won't open either
	}
	return out
}

func answerCredential(c *store.Credential) *credentialOutput {
	return &credentialOutput{ETag: etag(c.Revision), CacheControl: "no-store", Body: viewCredential(c)}
}

// credential finds the credential of a path.
func (a *API) credential(ctx context.Context, idOrName string) (store.Credential, error) {
	var c store.Credential
	id, err := protocol.ParseID(idOrName)
	if err == nil {
		c, err = a.o.DB.CredentialByID(ctx, id)
	} else {
		c, err = a.o.DB.CredentialByName(ctx, protocol.ID{}, idOrName)
	}
	return c, noCredential(err, idOrName)
}

func noCredential(err error, idOrName string) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem.New(http.StatusNotFound, "there is no credential with the id or name %q", idOrName)
	}
	return err
}

// credentialTaken says so with the field that is wrong.
func credentialTaken(err error, name string) error {
	switch {
	case errors.Is(err, store.ErrConflict):
		p := problem.New(http.StatusConflict, "there is another credential with the name %q", name)
		p.Errors = []problem.Field{problem.Body("/name", "exists", "names are unique: choose another one, or change that credential with PUT /credentials/{id}")}
		return p
	case errors.Is(err, store.ErrFull):
		return problem.New(http.StatusConflict, "there are %d credentials already, and no more are possible: delete those that no flow uses", credential.MaxInAll)
	}
	return err
}

// sealing says what an error of the vault means to a caller.
func sealing(err error, name string) error {
	var key *vault.WrongKeyError
	switch {
	case errors.Is(err, vault.ErrNoKey):
		return problem.New(http.StatusServiceUnavailable, "%s", err.Error())
	case errors.As(err, &key):
		return problem.New(http.StatusServiceUnavailable, "the credential %q can't be opened now: %s", name, err.Error())
	case errors.Is(err, vault.ErrDamaged):
		return problem.New(http.StatusConflict, "the credential %q can't be opened: %s", name, err.Error()).Wrap(err)
	}
	return err
}

func boundTo(c *store.Credential) vault.Row {
	return vault.Row{Project: c.Project, ID: c.ID, Name: c.Name, Type: c.Type, Public: c.Public}
}

// unseal gives a row's secret fields.
func (a *API) unseal(c *store.Credential) (credential.Values, error) {
	secret, err := a.o.Vault.Open(boundTo(c), vault.Sealed{Codec: c.Codec, KeyID: c.KeyID, Secret: c.Secret})
	return secret, sealing(err, c.Name)
}

// seal writes the public and the secret fields into a row, bound to its id, project, name and type.
func (a *API) seal(c *store.Credential, public, secret credential.Values) error {
	if public == nil {
		public = credential.Values{}
	}
	var err error
	if c.Public, err = json.Marshal(public); err != nil {
		return fmt.Errorf("write the public fields: %w", err)
	}
	return a.sealSecret(c, secret)
}

// sealSecret is seal for public fields that stay, to the byte.
func (a *API) sealSecret(c *store.Credential, secret credential.Values) error {
	if secret == nil {
		secret = credential.Values{}
	}
	sealed, err := a.o.Vault.Seal(boundTo(c), secret)
	c.Secret, c.Codec, c.KeyID = sealed.Secret, sealed.Codec, sealed.KeyID
	return sealing(err, c.Name)
}

func wrongCredential(problems []problem.Field) error {
	if len(problems) == 0 {
		return nil
	}
	return problem.Invalid(fmt.Sprintf("the credential has %d problems, nothing was saved", len(problems)), problems...)
}

// judge lists what is wrong with a body. kept are the secret fields that stay when it has none.
func judge(t credential.Type, b *CredentialBody, kept map[string]string) []problem.Field {
	var out []problem.Field
	if why := credential.CheckName(b.Name); why != "" {
		out = append(out, problem.Body("/name", "name", "%s", why))
	}
	for _, p := range t.Check(b.Public, b.Secret, kept) {
		out = append(out, problem.Body(p.Pointer, p.Code, "%s", p.Message))
	}
	return out
}

func (a *API) createCredential(ctx context.Context, in *struct{ Body CredentialBody }) (*credentialOutput, error) {
	b := &in.Body
	t, ok := credential.Find(b.Type)
	if !ok {
		return nil, wrongCredential([]problem.Field{problem.Body("/type", "unknown-type", "there is no such type of credential: GET /catalog/credentials lists them")})
	}
	if b.Secret == nil {
		b.Secret = credential.Values{}
	}
	if err := wrongCredential(judge(t, b, nil)); err != nil {
		return nil, err
	}
	c := store.Credential{ID: store.NewID(), Project: store.DefaultProject, Name: b.Name, Type: t.Name}
	if err := a.seal(&c, b.Public, b.Secret); err != nil {
		return nil, err
	}
	c, err := a.o.DB.CreateCredential(ctx, c, credential.MaxInAll)
	if err != nil {
		return nil, credentialTaken(err, b.Name)
	}
	a.note(ctx, "create", "credential", c.ID.String(), map[string]any{"name": c.Name, "type": c.Type})
	out := answerCredential(&c)
	out.Location = Base + "/credentials/" + c.ID.String()
	return out, nil
}

func (a *API) saveCredential(ctx context.Context, in *saveCredentialInput) (*credentialOutput, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	c, err := a.credential(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if revision >= 0 && revision != c.Revision {
		return nil, store.ErrStale
	}
	b := &in.Body
	t, ok := credential.Find(c.Type)
	if !ok || b.Type != "" && b.Type != c.Type {
		return nil, wrongCredential([]problem.Field{problem.Body("/type", "fixed", "the type of a credential (%s) never changes: make another credential", c.Type)})
	}
	secret := credential.Values(b.Secret)
	var kept map[string]string
	if secret == nil {
		if secret, err = a.unseal(&c); err != nil {
			return nil, err
		}
		kept = t.Flat(secret)
	}
	wrong := judge(t, b, kept)
	before := publicOf(&c)
	if len(kept) > 0 {
		for _, name := range t.Moved(before, b.Public) {
			wrong = append(wrong, problem.Body("/public/"+name, "target", "this says where the secret is sent: to change it, give the secret (%s) again", strings.Join(t.SecretFields(), ", ")))
		}
	}
	if err := wrongCredential(wrong); err != nil {
		return nil, err
	}
	was := c
	c.Name = b.Name
	if err := a.seal(&c, b.Public, secret); err != nil {
		return nil, err
	}
	if c, err = a.o.DB.SaveCredential(ctx, c, was.Revision); err != nil {
		return nil, credentialTaken(noCredential(err, in.ID), b.Name)
	}
	a.note(ctx, "save", "credential", c.ID.String(), map[string]any{"name": c.Name, "type": c.Type, "renamed": was.Name != c.Name, "public": string(was.Public) != string(c.Public), "secret": b.Secret != nil})
	return answerCredential(&c), nil
}

func (a *API) deleteCredential(ctx context.Context, in *struct {
	CredentialRef
	IfMatch string `header:"If-Match" doc:"ETag that the credential must still have"`
}) (*nothing, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	c, err := a.credential(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.o.DB.DeleteCredential(ctx, c.ID, revision); err != nil {
		return nil, noCredential(err, in.ID)
	}
	a.note(ctx, "delete", "credential", c.ID.String(), map[string]any{"name": c.Name, "type": c.Type})
	return nil, nil
}
