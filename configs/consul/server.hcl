# A Consul server. How many there are (bootstrap_expect) is said in machine.hcl.
server = true

# The leader of the orchestrators holds a session with a short TTL; Consul's own lower bound is 10 s.
session_ttl_min = "1s"

# A restart is not a departure: members, services and sessions outlive it.
leave_on_terminate = false

ui_config {
  enabled = true
}

# No service mesh: services talk to each other directly.
connect {
  enabled = false
}

performance {
  raft_multiplier = 1
}
