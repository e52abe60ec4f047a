package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

const hushed = "correct-horse-battery-staple"

// opening gives one credential, named shop.
func opening(_ context.Context, name string) (node.Credential, *credential.Masker, error) {
	if name != "shop" {
		return node.Credential{}, nil, &node.Error{Code: "credential-unknown"}
	}
	return node.Credential{ID: "1", Name: "shop", Type: credential.HTTPBearer, Fields: map[string]string{"token": hushed}}, credential.NewMasker(&credential.Opened{Secret: map[string]string{"token": hushed}}), nil
}

func TestCredentialOfAStep(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]struct {
		config map[string]any
		types  []string
		code   string
	}{
		"good": {map[string]any{"credential": "shop"}, []string{credential.HTTPBasic, credential.HTTPBearer}, ""}, "another type": {map[string]any{"credential": "shop"}, []string{credential.Postgres}, "credential-type"},
		"unknown": {map[string]any{"credential": "shoo"}, []string{credential.HTTPBearer}, "credential-unknown"}, "none": {nil, []string{credential.HTTPBearer}, "credential-missing"}, "no name": {map[string]any{"credential": 7}, []string{credential.HTTPBearer}, "credential-missing"},
	} {
		s := &secrets{open: opening, config: k.config}
		c, err := s.credential(t.Context(), k.types...)
		var ne *node.Error
		switch {
		case k.code == "" && (err != nil || c.Fields["token"] != hushed), k.code != "" && (!errors.As(err, &ne) || ne.Code != k.code || c.Fields != nil):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatWasSecretStaysOut: however a node fails, panics or answers with what it was given, no report holds it.
func TestWhatWasSecretStaysOut(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.Credential = opening })
	s := func(ctx context.Context, call node.Call) string {
		c, err := call.Credential(ctx, credential.HTTPBearer)
		if err != nil {
			t.Error(err)
		}
		return c.Fields["token"]
	}
	for name, f := range map[string]func(ctx context.Context, call node.Call) (node.Result, error){
		"output": func(ctx context.Context, call node.Call) (node.Result, error) {
			return node.Result{Output: map[string]any{"echo": []any{"Bearer " + s(ctx, call)}}}, nil
		},
		"error": func(ctx context.Context, call node.Call) (node.Result, error) {
			return node.Result{}, fmt.Errorf("dial https://user:%s@host", s(ctx, call))
		},
		"node error": func(ctx context.Context, call node.Call) (node.Result, error) {
			k := s(ctx, call)
			return node.Result{}, &node.Error{Code: "x", Message: "the server says " + k, Data: map[string]any{"body": k}, Err: errors.New(k)}
		},
		"panic": func(ctx context.Context, call node.Call) (node.Result, error) { panic("no " + s(ctx, call)) },
	} {
		run := &run{r: b.r, text: "e"}
		b.mu.Lock()
		b.nodes = f
		b.mu.Unlock()
		result, err := b.r.execute(t.Context(), run, flow.Command{Type: "effect", Kind: flow.KindEffect, Config: map[string]any{"credential": "shop"}, Key: flow.Key{Node: "n"}}, nil)
		shown := fmt.Sprintf("%v", result.Output)
		if err != nil {
			shown = fmt.Sprintf("%+v", *failure("n", err))
		}
		if strings.Contains(shown, hushed) || !strings.Contains(shown, credential.Masked) {
			t.Errorf("%s: %s", name, shown)
		}
	}
}
