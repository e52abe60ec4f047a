package console

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Until calls check every quarter of a second until it says true, fails, or the time is up. What it is waiting for is what
// check said last.
func Until(ctx context.Context, p *Part, limit time.Duration, check func(context.Context) (ok bool, waitingFor string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, waitingFor, err := check(ctx)
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		}
		p.Doing("%s", waitingFor)
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("not ready after %s: %s", limit, waitingFor)
			}
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
