package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
)

// secrets gives one try the credential that its config names, and takes what was secret out of what the try gives back.
type secrets struct {
	open   func(ctx context.Context, idOrName string) (node.Credential, *credential.Masker, error)
	config map[string]any

	mu    sync.Mutex
	masks []*credential.Masker
}

// credential is node.Call.Credential.
func (s *secrets) credential(ctx context.Context, types ...string) (node.Credential, error) {
	name, _ := s.config[node.CredentialSetting].(string)
	if name == "" {
		return node.Credential{}, &node.Error{Code: "credential-missing", Message: "this step needs a credential (" + strings.Join(types, ", ") + "): name one in its setting credential"}
	}
	c, mask, err := s.open(ctx, name)
	if err != nil {
		return node.Credential{}, err
	}
	s.mu.Lock()
	s.masks = append(s.masks, mask)
	s.mu.Unlock()
	if !slices.Contains(types, c.Type) {
		return node.Credential{}, &node.Error{Code: "credential-type", Message: fmt.Sprintf("the credential %q is of type %s, and this step takes %s", c.Name, c.Type, strings.Join(types, ", "))}
	}
	return c, nil
}

func (s *secrets) opened() []*credential.Masker {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.masks
}

// text masks a text.
func (s *secrets) text(t string) string {
	for _, m := range s.opened() {
		t = m.Error(t)
	}
	return t
}

// hush masks what a try gives back: a server's echo and a library's error show what they were given.
func (s *secrets) hush(result node.Result, err error) (node.Result, error) {
	masks := s.opened()
	if len(masks) == 0 {
		return result, err
	}
	if err == nil {
		for _, m := range masks {
			result.Output = m.Output(result.Output)
		}
		return result, nil
	}
	var known *node.Error
	if !errors.As(err, &known) {
		return result, errors.New(s.text(err.Error()))
	}
	e := &node.Error{Code: known.Code, Message: s.text(known.Message), Retryable: known.Retryable, Data: known.Data}
	for _, m := range masks {
		e.Data = m.ErrorData(e.Data)
	}
	if known.Err != nil {
		e.Err = errors.New(s.text(known.Err.Error()))
	}
	return result, e
}
