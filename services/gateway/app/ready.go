package app

import "context"

// Ready waits until everything that this gateway needs is there; the error says what is missing when ctx ends.
func (a *App) Ready(ctx context.Context) error { return a.health.Await(ctx) }
