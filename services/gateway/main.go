// Command gateway is the only way in: the API, who may use it, and the durable acceptance of executions.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"os"

	"flowplatform/services/gateway/app"
	"flowplatform/services/internal/service"
)

func main() {
	os.Exit(service.Main("gateway", func(o *app.Options) string { return o.LogLevel }, app.Run))
}
