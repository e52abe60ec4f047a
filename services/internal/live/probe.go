package live

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

// Probe connects once to a server, pings it, and leaves. It connects with dial only. Its errors are for users and don't show the URL.
func Probe(ctx context.Context, url string, dial func(ctx context.Context, network, address string) (net.Conn, error)) error {
	o, err := redis.ParseURL(url)
	if err != nil {
		return errors.New("this is not a Redis URL that can be used") // the library's text may show it
	}
	o.MaxRetries, o.PoolSize, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, true, true
	var dialErr error
	o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		var c net.Conn
		if c, dialErr = dial(ctx, network, address); dialErr != nil || o.TLSConfig == nil {
			return c, dialErr
		}
		secured := tls.Client(c, o.TLSConfig)
		if dialErr = secured.HandshakeContext(ctx); dialErr != nil {
			c.Close()
			return nil, dialErr
		}
		return secured, nil
	}
	c := redis.NewClient(o)
	defer c.Close()
	err = c.Ping(ctx).Err()
	if dialErr != nil {
		return dialErr
	}
	return err
}
