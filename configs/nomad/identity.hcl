# Services and tasks get Consul tokens of their own, made from what Nomad signs about them (auth method nomad-workloads).
consul {
  service_identity {
    aud = ["consul.io"]
    ttl = "1h"
  }

  task_identity {
    aud = ["consul.io"]
    ttl = "1h"
  }
}
