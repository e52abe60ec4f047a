package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"flowplatform/scripts/internal/api"
)

// targetsUp asks Prometheus what it scrapes: how many answer, and those that don't, with what it last heard.
func (s settings) targetsUp(ctx context.Context) (up int, down []string, err error) {
	var answer struct {
		Data struct {
			ActiveTargets []struct {
				Labels            map[string]string
				Health, LastError string
			}
		}
	}
	if err := api.New(s.url("PROMETHEUS_PORT"), "", "").Call(ctx, http.MethodGet, "/api/v1/targets?state=active", nil, &answer); err != nil {
		return 0, nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	for _, t := range answer.Data.ActiveTargets {
		if t.Health == "up" {
			up++
			continue
		}
		down = append(down, strings.TrimSuffix(fmt.Sprintf("%s at %s: %s %s", t.Labels["job"], t.Labels["instance"], t.Health, t.LastError), " "))
	}
	slices.Sort(down)
	return up, down, nil
}

// sayTargets is the line of make status about what is scraped.
func (s settings) sayTargets(ctx context.Context) string {
	up, down, err := s.targetsUp(ctx)
	switch {
	case err != nil:
		return err.Error()
	case len(down) > 0:
		return fmt.Sprintf("%d of %d targets up; %s", up, up+len(down), strings.Join(down, "; "))
	}
	return fmt.Sprintf("all %d targets up", up)
}
