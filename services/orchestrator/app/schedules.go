package app

import (
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/orchestrator/internal/catch"
	"flowplatform/services/orchestrator/internal/schedule"
)

// scheduling makes the leader's clockwork, and what starts error flows. Both read flows as the gateway does: nodes are only known here, none is run.
func (a *App) scheduling() (*schedule.Schedules, *catch.Catcher, error) {
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		return nil, nil, err
	}
	defs := definitions.New(a.db, catalogue, expr.New(), time.Now)
	schedules := schedule.New(schedule.Options{Store: a.db, Definitions: defs, Shards: a.shardCount, Follow: a.follow.Take, Log: a.component("schedule"), Registerer: a.registry})
	return schedules, catch.New(catch.Options{Store: a.db, Definitions: defs, Shards: a.shardCount, Follow: a.follow.Take, Log: a.component("catch"), Registerer: a.registry}), nil
}
