# Every Nomad agent, whatever its role. machine.hcl adds what differs from machine to machine.
datacenter           = "dc1"
log_level            = "INFO"
disable_update_check = true

# A restart of the agent leaves its tasks running and finds them again.
leave_on_terminate = false
leave_on_interrupt = false

# Everything on one machine is one client to Nomad.
limits {
  http_max_conns_per_client = 2000
  rpc_max_conns_per_client  = 2000
}

telemetry {
  prometheus_metrics         = true
  publish_allocation_metrics = true
  publish_node_metrics       = true
  disable_hostname           = true
}
