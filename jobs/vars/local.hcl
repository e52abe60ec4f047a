# This machine as a whole platform: one node that is server, client and data at once.
# What only the machine itself knows (ports that were free, versions that were built) is in a second file, which
# make up writes to config/jobs.hcl in the data directory.
datacenters = ["dc1"]
environment = "local"
log_level   = "info"

gateway_count      = 1
orchestrator_count = 2
worker_count       = 2
worker_pool        = "default"
worker_slots       = 1000

# The release is in versions, which make up writes; -var version=SUM goes to another (docs/operations.md).
version = ""

# Flows that call what runs on this machine are what it is for.
deny_loopback = false

# Two cores for everything.
rabbitmq_schedulers = 1
