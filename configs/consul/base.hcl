# Every Consul agent, whatever its role. machine.hcl adds what differs from machine to machine.
datacenter           = "dc1"
log_level            = "INFO"
disable_update_check = true

# Everything on one machine is one client to Consul: Nomad, its templates and every service keep blocking queries open.
limits {
  http_max_conns_per_client = 2000
}

telemetry {
  prometheus_retention_time = "2m"
  disable_hostname          = true
}
