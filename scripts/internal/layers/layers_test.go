package layers

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestFillNamesWhatHasNoValue(t *testing.T) {
	t.Parallel()
	got, err := Fill("# ${NAME} becomes the value of NAME\nport = ${PORT}\n", map[string]string{"PORT": "1"})
	if err != nil || got != "# ${NAME} becomes the value of NAME\nport = 1\n" {
		t.Errorf("Fill = %q, %v", got, err)
	}
	if _, err := Fill("port = ${PROT}", nil); err == nil || !strings.Contains(err.Error(), "PROT") {
		t.Errorf("Fill with an unknown name: %v", err)
	}
}

func TestLayersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	dir := fstest.MapFS{"base.hcl": {Data: []byte("a = 1\n")}, "host.hcl.tmpl": {Data: []byte("port = ${PORT}\n")}}
	files, err := Render(dir, []string{"base.hcl", "host.hcl.tmpl"}, map[string]string{"PORT": "1"})
	if err != nil || len(files) != 2 || files[0].Name != "010-base.hcl" || files[1].Name != "020-host.hcl" || string(files[1].Content) != "port = 1\n" {
		t.Errorf("Render = %q, %v", files, err)
	}
	for _, layers := range [][]string{{"none.hcl"}, {"host.hcl.tmpl"}} {
		if _, err := Render(dir, layers, nil); err == nil || !strings.Contains(err.Error(), layers[0]) {
			t.Errorf("Render %s: %v, want an error that names it", layers, err)
		}
	}
}
