package nodes

import (
	"reflect"
	"strings"
	"testing"

	"flowplatform/services/internal/node"
)

func TestRespond(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config map[string]any
		want   map[string]any
		bad    string
	}{
		"nothing":     {map[string]any{}, map[string]any{"status": 200, "headers": map[string]any{}, "body": nil}, ""},
		"all":         {map[string]any{"status": 201, "headers": map[string]any{"X-N": 7}, "body": []any{1}}, map[string]any{"status": 201, "headers": map[string]any{"X-N": "7"}, "body": []any{1}}, ""},
		"status 100":  {map[string]any{"status": 100}, nil, "status is"},
		"status text": {map[string]any{"status": "200"}, nil, "status is"},
		"no object":   {map[string]any{"headers": "a"}, nil, "headers is"},
		"line break":  {map[string]any{"headers": map[string]any{"X-A": "a\r\nSet-Cookie: b"}}, nil, "headers.X-A is"},
		"name":        {map[string]any{"headers": map[string]any{"X A": "a"}}, nil, "headers.X A is"},
		"list":        {map[string]any{"headers": map[string]any{"X-A": []any{}}}, nil, "headers.X-A is"},
		"cookie":      {map[string]any{"headers": map[string]any{"set-COOKIE": "a=b"}}, nil, "can't be set by a flow"},
		"accel":       {map[string]any{"headers": map[string]any{"X-Accel-Redirect": "/internal"}}, nil, "can't be set by a flow"},
	} {
		r, err := respond{}.Execute(t.Context(), node.Call{Config: tc.config})
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(r.Output, any(tc.want)) {
			t.Errorf("%s: %+v %v", name, r.Output, err)
		}
	}
}
