// Command migrate brings the database to this release's schema, makes the partitions of the days ahead, and ends. It waits for the server.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"os"

	"flowplatform/services/internal/service"
	"flowplatform/services/migrate/app"
)

func main() {
	os.Exit(service.Main("migrate", func(o *app.Options) string { return o.LogLevel }, app.Run))
}
