# A Nomad server. How many there are (bootstrap_expect) is said in machine.hcl.
server {
  enabled = true

  # Six versions is Nomad's default, and each scaling makes one: too few to find the release before a bad one.
  job_tracked_versions = 30

  # Tasks reserve what they need at rest and may grow to memory_max.
  default_scheduler_config {
    memory_oversubscription_enabled = true
  }
}
