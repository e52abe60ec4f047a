package app

import (
	"context"
	"errors"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
	"flowplatform/services/orchestrator/internal/bulk"
)

// bulk makes the leader's loop over bulk jobs.
func (a *App) bulk() (*bulk.Bulk, error) {
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		return nil, err
	}
	defs := definitions.New(a.db, catalogue, expr.New(), time.Now)
	return bulk.New(bulk.Options{
		Store: a.db, Follow: a.follow.Take, Log: a.component("bulk"), Registerer: a.registry,
		Replay: func(ctx context.Context, id protocol.ID, client string) (*store.Replay, string, error) {
			return a.replay(ctx, defs, id, client)
		},
	}), nil
}

// replay makes the execution that repeats one from its beginning, or says why there can't be any.
func (a *App) replay(ctx context.Context, defs *definitions.Definitions, id protocol.ID, client string) (*store.Replay, string, error) {
	old, err := a.db.ExecutionByID(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, "no execution has this id, or no longer", nil
	}
	if err != nil {
		return nil, "", err
	}
	r, problems, err := start.Replay(ctx, defs, a.db, &old, start.ReplayRequest{Client: client, Now: time.Now(), Shards: a.shardCount()})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, start.ErrFlowGone), errors.Is(err, start.ErrNoVersion), errors.Is(err, start.ErrNoEntry), errors.As(err, &unusable), errors.Is(err, store.ErrNotFound):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", err
	case len(problems) > 0:
		return nil, problems[0].Pointer + ": " + problems[0].Message, nil
	}
	return r, "", nil
}
