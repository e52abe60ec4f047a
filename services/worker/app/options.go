package app

import (
	"os"
	"path/filepath"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/env"
)

// Options of a worker, read from its environment. DATABASE_URL is the read replica.
type Options struct {
	env.Common
	Port                 int           `env:"PORT" envDefault:"3004" min:"0" max:"65535" desc:"/healthz and /readyz; 0: any"`
	MetricsPort          int           `env:"METRICS_PORT" envDefault:"9092" min:"0" max:"65535" desc:"/metrics, /healthz and /readyz; 0: any"`
	DatabasePoolSize     int           `env:"DATABASE_POOL_SIZE" envDefault:"5" min:"1" max:"500" desc:"connections to PostgreSQL"`
	RabbitMQPrefetch     int           `env:"RABBITMQ_PREFETCH" envDefault:"5" min:"1" max:"10000" desc:"tasks held beyond the free slots, for each priority"`
	WorkerLease          time.Duration `env:"WORKER_LEASE" envDefault:"15s" min:"1s" max:"10m" desc:"how long the session lives without a renewal; an orchestrator's shorter one wins"`
	WorkerID             string        `env:"WORKER_ID" desc:"names this worker; default: worker-<hostname>"`
	WorkerPool           string        `env:"WORKER_POOL" envDefault:"default" desc:"pool whose tasks it takes"`
	WorkerWeight         int           `env:"WORKER_WEIGHT" envDefault:"1" min:"1" max:"1000" desc:"share under the strategy weighted"`
	WorkerStateDir       string        `env:"WORKER_STATE_DIR" desc:"where the lock file of its session is: the same for its successor; default: a directory of its own in the system's temporary one"`
	MaxConcurrentFlows   int           `env:"MAX_CONCURRENT_FLOWS" envDefault:"1000" min:"1" max:"100000" desc:"executions at once"`
	MaxConcurrentNodes   int           `env:"MAX_CONCURRENT_NODES" envDefault:"4000" min:"1" max:"1000000" desc:"effects at once, over all executions"`
	MemoryLimitMB        int           `env:"MEMORY_LIMIT_MB" envDefault:"1024" min:"64" max:"1048576" desc:"memory that it may use, in MiB"`
	CPULimitCores        float64       `env:"CPU_LIMIT_CORES" envDefault:"2" min:"1" max:"1024" desc:"processors that it may use"`
	HealthReportInterval time.Duration `env:"HEALTH_REPORT_INTERVAL" envDefault:"15s" min:"1s" max:"10m" desc:"how often it reports its load"`
	OrchestratorURL      string        `env:"ORCHESTRATOR_URL" required:"true" desc:"orchestrators: URLs by comma, or consul://orchestrator"`
	GatewayURL           string        `env:"GATEWAY_URL" envDefault:"consul://gateway" desc:"gateways, which open credentials: URLs by comma, or consul://gateway"`
	CredentialsToken     string        `env:"CREDENTIALS_TOKEN" secret:"true" desc:"bearer token with which it opens credentials; INTERNAL_TOKEN if not set"`
	NodeLogLevel         string        `env:"NODE_CORE_LOG_LEVEL" envDefault:"info" oneof:"debug|info|warn|error" desc:"from which level on nodes log"`
	NodeTimeout          time.Duration `env:"NODE_CORE_TIMEOUT" envDefault:"60s" min:"10ms" max:"24h" desc:"of one try, for nodes that say nothing else"`
	StopGrace            time.Duration `env:"STOP_GRACE" envDefault:"10s" min:"0s" max:"24h" desc:"how long executions may run on after SIGTERM before they are handed back at their next step"`
	StopPatience         time.Duration `env:"STOP_PATIENCE" envDefault:"60s" min:"0s" max:"24h" desc:"how long steps in flight may take after that before they are cut"`
	DenyPrivate          bool          `env:"HTTP_DENY_PRIVATE" envDefault:"false" desc:"flows may not call private networks"`
	DenyLoopback         bool          `env:"HTTP_DENY_LOOPBACK" envDefault:"false" desc:"flows may not call this machine"`
	NodesRabbitMQURL     string        `env:"FLOW_NODES_RABBITMQ_URL" secret:"true" desc:"the platform's broker as flows use it (vhost flows, user flow_nodes): where amqp.publish goes without a credential; without it, it needs one"`
	Allocation           string        `env:"NOMAD_ALLOC_ID" desc:"allocation under Nomad"`

	// What no environment sets: flowctl dev has the three services in one process.
	Broker broker.Server // nil: RabbitMQ
}

// defaults fills in what depends on the machine.
func (o *Options) defaults() {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if o.WorkerID == "" {
		o.WorkerID = "worker-" + host
	}
	if o.WorkerStateDir == "" {
		o.WorkerStateDir = filepath.Join(os.TempDir(), "flow-"+filepath.Base(o.WorkerID))
	}
}
