// Package layers renders the agents' configuration: configs/<program> holds layers, files that the daemon itself merges, and those that
// end in .tmpl name values as ${NAME}. The platform on one machine and a host of a cluster are made from the same base layers.
package layers

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// File is a rendered layer. Its name begins with a number, so that the daemon reads the layers in their order.
type File struct {
	Name    string
	Content []byte
}

// Render reads layers from a directory of configs and fills in the templates among them.
func Render(dir fs.FS, layers []string, values map[string]string) ([]File, error) {
	files := make([]File, 0, len(layers))
	for i, layer := range layers {
		b, err := fs.ReadFile(dir, layer)
		if err != nil {
			return nil, fmt.Errorf("read a layer: %w", err)
		}
		if rendered, isTemplate := strings.CutSuffix(layer, ".tmpl"); isTemplate {
			filled, err := Fill(string(b), values)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", layer, err)
			}
			layer, b = rendered, []byte(filled)
		}
		files = append(files, File{Name: fmt.Sprintf("%03d-%s", (i+1)*10, layer[strings.LastIndex(layer, "/")+1:]), Content: b})
	}
	return files, nil
}

// Fill puts values in the place of ${NAME}. A name without a value is an error. Comments may say ${NAME} itself.
func Fill(text string, values map[string]string) (string, error) {
	var unknown []string
	filled := os.Expand(text, func(name string) string {
		if value, ok := values[name]; ok {
			return value
		}
		if name == "NAME" {
			return "${NAME}"
		}
		unknown = append(unknown, name)
		return ""
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("no value for %s", strings.Join(unknown, ", "))
	}
	return filled, nil
}
