package app

import (
	"context"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/settings"
)

// Options of an orchestrator, read from its environment.
type Options struct {
	env.Common
	settings.Values
	Port             int           `env:"PORT" envDefault:"3003" min:"0" max:"65535" desc:"internal API, /healthz and /readyz; 0: any"`
	MetricsPort      int           `env:"METRICS_PORT" envDefault:"9091" min:"0" max:"65535" desc:"/metrics, /healthz and /readyz; 0: any"`
	HealthCheckPort  int           `env:"HEALTH_CHECK_PORT" min:"0" max:"65535" desc:"a further listener for /healthz and /readyz, only if set"`
	DatabasePoolSize int           `env:"DATABASE_POOL_SIZE" envDefault:"10" min:"4" max:"500" desc:"connections to PostgreSQL"`
	RabbitMQPrefetch int           `env:"RABBITMQ_PREFETCH" envDefault:"50" min:"1" max:"10000" desc:"reports held beyond a full batch, for each report queue"`
	WorkerLease      time.Duration `env:"WORKER_LEASE" envDefault:"15s" min:"1s" max:"10m" desc:"how long a worker may act after its last renewal; the same for all services"`
	LeaderKey        string        `env:"LEADER_KEY" envDefault:"flow/orchestrator/leader" desc:"key of the leader's lock in Consul"`
	LeaderTTL        time.Duration `env:"LEADER_TTL" envDefault:"1200ms" min:"1s" max:"1m" desc:"TTL of the leader's session; a takeover takes two of them. Consul's servers must allow it (session_ttl_min), else it is 10s"`
	WorkerJob        string        `env:"WORKER_JOB" envDefault:"worker" desc:"Nomad job of the pool default; that of another pool is called worker-POOL"`
	InstanceID       string        `env:"INSTANCE_ID" desc:"names this process in the lock and in logs; default: host and process id"`

	ExecutionRetention time.Duration `env:"EXECUTION_RETENTION" envDefault:"720h" min:"24h" max:"87600h" desc:"how long executions are kept after their end, in whole days; a flow's settings.retention goes before it, and may be shorter"`
	HistoryRetention   time.Duration `env:"HISTORY_RETENTION" envDefault:"720h" min:"1h" max:"87600h" desc:"how long dead letters, decisions and fires are kept"`
	AuditRetention     time.Duration `env:"AUDIT_RETENTION" envDefault:"8760h" min:"2160h" max:"876000h" desc:"how long the audit is kept, 90 days at least"`

	// What no environment sets: flowctl dev has the three services in one process.
	Broker broker.Server                           // nil: RabbitMQ
	Show   func(context.Context, live.Fleet) error // shows the leader's picture; nil: by Redis
	Alone  bool                                    // it leads without Consul: the only orchestrator there can be
}
