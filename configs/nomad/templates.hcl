# How the client renders templates.
client {
  template {
    # Unlimited: by default a task is killed when Consul or Nomad can't be reached for about four minutes.
    consul_retry {
      attempts    = 0
      backoff     = "250ms"
      max_backoff = "10s"
    }

    nomad_retry {
      attempts    = 0
      backoff     = "250ms"
      max_backoff = "10s"
    }

    # By default a change waits for 5 s of quiet, up to 4 minutes, and a list may be as stale as 87,600 hours.
    wait {
      min = "200ms"
      max = "2s"
    }

    max_stale = "10s"

    # No functions that run programs or write beside the template's own file.
    disable_file_sandbox = false
    function_denylist    = ["plugin", "writeToFile", "executeTemplate"]
  }
}
