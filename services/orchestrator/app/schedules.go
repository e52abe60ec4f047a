package app

import (
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/orchestrator/internal/schedule"
)

// scheduling makes the leader's clockwork. It reads flows as the gateway does: nodes are only known here, none is run.
func (a *App) scheduling() (*schedule.Schedules, error) {
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		return nil, err
	}
	return schedule.New(schedule.Options{
		Store: a.db, Definitions: definitions.New(a.db, catalogue, expr.New(), time.Now), Shards: a.shardCount, Follow: a.follow.Take, Log: a.component("schedule"), Registerer: a.registry,
	}), nil
}
