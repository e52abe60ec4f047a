package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/live"
)

// Options of a gateway, read from its environment.
type Options struct {
	env.Common
	Port               int    `env:"PORT" envDefault:"3001" min:"0" max:"65535" desc:"API, documentation, /healthz and /readyz; 0: any"`
	MetricsPort        int    `env:"METRICS_PORT" envDefault:"9090" min:"0" max:"65535" desc:"/metrics, /healthz and /readyz; 0: any"`
	DatabaseReplicaURL string `env:"DATABASE_REPLICA_URL" secret:"true" desc:"PostgreSQL read replica, for lists; without it they go to the primary"`
	DatabasePoolSize   int    `env:"DATABASE_POOL_SIZE" envDefault:"20" min:"4" max:"500" desc:"connections to PostgreSQL"`
	RabbitMQPrefetch   int    `env:"RABBITMQ_PREFETCH" envDefault:"10" min:"1" max:"10000" desc:"accepted for all services; the gateway consumes nothing yet"`
	JWTSecret          string `env:"JWT_SECRET" secret:"true" required:"true" desc:"signs access tokens, at least 16 characters; the same for all gateways"`
	APIRateLimit       int    `env:"API_RATE_LIMIT" envDefault:"1000" min:"1" max:"100000000" desc:"requests a minute and client"`
	CredentialsKey     string `env:"CREDENTIALS_KEY" secret:"true" desc:"encrypts credentials: 32 bytes in base64; several by comma, the current one first, old ones only open"`
	CredentialsToken   string `env:"CREDENTIALS_TOKEN" secret:"true" desc:"bearer token of workers that open credentials; INTERNAL_TOKEN if not set"`
	DenyPrivate        bool   `env:"HTTP_DENY_PRIVATE" envDefault:"false" desc:"credentials that are tried out may not lead into private networks; as at the workers"`
	DenyLoopback       bool   `env:"HTTP_DENY_LOOPBACK" envDefault:"false" desc:"credentials that are tried out may not lead to this machine; as at the workers"`
	WSPort             int    `env:"WS_PORT" min:"0" max:"65535" desc:"port of the WebSocket, PORT if not set; not used yet"`
	WSCORSOrigins      string `env:"WS_CORS_ORIGINS" desc:"origins like https://flows.example whose scripts may call the API (and open the WebSocket, once there is one), by comma; * is everybody's"`
	TrustedProxies     string `env:"TRUSTED_PROXIES" envDefault:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16" desc:"networks whose X-Forwarded-For is believed, by comma"`
	UnhandedLimit      int    `env:"ACCEPT_UNHANDED_LIMIT" envDefault:"50000" min:"1" max:"100000" desc:"accepted executions that may wait for RabbitMQ before new ones are refused with 503"`

	// What no environment sets: flowctl dev has the three services in one process.
	Broker broker.Server                             // nil: RabbitMQ
	Fleet  func(context.Context) (live.Fleet, error) // the leader's picture; nil: from Redis
}

// proxies reads TrustedProxies, and checks what tags can't.
func (o *Options) proxies() ([]netip.Prefix, error) {
	var errs []error
	if len(o.JWTSecret) < 16 {
		errs = append(errs, errors.New("JWT_SECRET is too short: at least 16 characters"))
	}
	var out []netip.Prefix
	for _, s := range strings.Split(o.TrustedProxies, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("TRUSTED_PROXIES: %q is not a network like 10.0.0.0/8", s))
			continue
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

// origins reads WSCORSOrigins.
func (o *Options) origins() ([]string, error) {
	var out []string
	var errs []error
	for _, s := range strings.Split(o.WSCORSOrigins, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		u, err := url.Parse(s)
		if s != "*" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || s != u.Scheme+"://"+u.Host) {
			errs = append(errs, fmt.Errorf("WS_CORS_ORIGINS: %q is not an origin like https://flows.example, without a path", s))
			continue
		}
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}
