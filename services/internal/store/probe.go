package store

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Probe connects once to the server of a connection string, asks it something, and leaves. It connects with dial only. Its errors are for users, and hold no
// more of the connection string than the server itself says.
func Probe(ctx context.Context, url string, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		return errors.New("this is not a connection string that can be used") // the driver's text shows it
	}
	cfg.DialFunc = dial
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // dial looks it up, and judges the addresses
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err == nil {
		defer c.Close(context.WithoutCancel(ctx))
		_, err = c.Exec(ctx, "SELECT 1").ReadAll()
	}
	if pg := pgError(err); pg != nil {
		return fmt.Errorf("the server refuses: %s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	return innermost(err)
}

// innermost leaves out what the driver wraps around an error: it names users, and parts of connection strings.
func innermost(err error) error {
	var network *net.OpError
	if errors.As(err, &network) {
		return network
	}
	for {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			if len(e.Unwrap()) == 0 {
				return err
			}
			err = e.Unwrap()[0]
		default:
			return err
		}
	}
}
