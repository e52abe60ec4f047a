package app

import (
	"context"
	"log/slog"

	"flowplatform/services/internal/protocol"
)

type events struct{}

func newEvents(_ Options, _ *slog.Logger) (*events, error) { return &events{}, nil }

func (e *events) publish(context.Context, []protocol.News) error { return nil }
func (e *events) ping(context.Context) error                     { return nil }
func (e *events) close(context.Context) error                    { return nil }
