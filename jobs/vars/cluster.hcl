# A cluster of several hosts, with ACLs, TLS and a firewall on each. What only one cluster knows is in a second file, which
# flowcluster writes:
#   front_door_port                                   the port that users come to
#   postgres_address, rabbitmq_address, redis_address the data host's private address, with the ports below
#   postgres_bin                                      of the version that made the data
#   versions                                          the release of each program
# and in the Nomad Variables nomad/jobs/<job>, beside the passwords:
#   postgres     networks                             every host's private address as CIDR, by comma
#   front-door   certificate, key                     PEM: HTTPS; without them HTTP
datacenters = ["dc1"]
environment = "cluster"
log_level   = "info"

gateway_count      = 2
orchestrator_count = 2
worker_count       = 2
worker_pool        = "default"
worker_slots       = 1000

# Threads of RabbitMQ, which shares its host with PostgreSQL and Redis.
rabbitmq_schedulers = 2

# Of the platform's own services on their hosts' private addresses; scripts/internal/spec and the firewall name the same.
artifacts_port  = 16080
postgres_port   = 15432
prometheus_port = 19090
rabbitmq_port   = 15671
redis_port      = 16379

# The host's own artifacts: Nomad fills in the address where the task runs.
artifacts_url = "http://$${attr.unique.network.ip-address}:16080"

# Consul's agent on the host; Nomad by the task's own socket, as who it is.
consul_address = "127.0.0.1:8500"
nomad_address  = "unix:///secrets/api.sock"

# On all addresses: the firewall lets those in who may use it.
front_door_address = "0.0.0.0"

version = ""

# Consul's agent listens on every host's loopback.
deny_loopback = true
