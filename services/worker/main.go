// Command worker runs flows: it takes tasks from RabbitMQ, claims them from an orchestrator before their first effect, and reports what happened.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"os"

	"flowplatform/services/internal/nodes/script"
	"flowplatform/services/internal/service"
	"flowplatform/services/worker/app"
)

func main() {
	if status, is := script.Child(); is { // one of a worker's own processes, for data.code
		os.Exit(status)
	}
	os.Exit(service.Main("worker", func(o *app.Options) string { return o.LogLevel }, app.Run))
}
