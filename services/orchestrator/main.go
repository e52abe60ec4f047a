// Command orchestrator leases workers their sessions, grants claims, collects reports, and, while it is the elected leader, looks after
// everything that would stand still: dead workers, timers, deadlines, tasks that were never handed out.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"os"

	"flowplatform/services/internal/service"
	"flowplatform/services/orchestrator/app"
)

func main() {
	os.Exit(service.Main("orchestrator", func(o *app.Options) string { return o.LogLevel }, app.Run))
}
