package app

import (
	"context"

	"flowplatform/services/internal/live"
)

// Ready waits until everything that this gateway needs is there; the error says what is missing when ctx ends.
func (a *App) Ready(ctx context.Context) error { return a.health.Await(ctx) }

// fleet is where the leader's picture comes from.
func (a *App) fleet() func(context.Context) (live.Fleet, error) {
	if a.o.Fleet != nil {
		return a.o.Fleet
	}
	return a.live.GetFleet
}
