# Artifacts: serves the platform's own programs to Nomad's clients, from <url>/<name>/<sha256>/<name>. What stands at an
# address never changes, so a release is a new address, and going back is the old one. On every client: no host needs
# another for its programs.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "artifacts_port" {
  type        = number
  description = "Port on the machine, part of every artifact's address, for example 16080."
}

job "artifacts" {
  datacenters = var.datacenters
  type        = "system"

  # Before everything that needs it, when a machine has too little room for all.
  priority = 70

  group "artifacts" {
    update {
      max_parallel     = 1
      min_healthy_time = "1s"
      healthy_deadline = "1m"
    }

    restart {
      attempts = 20
      interval = "10m"
      delay    = "250ms"
      mode     = "delay"
    }

    network {
      port "http" {
        static = var.artifacts_port
      }
    }

    dynamic "volume" {
      for_each = ["usr", "lib", "lib64", "bin", "artifacts"]
      labels   = [volume.value]
      content {
        type      = "host"
        source    = volume.value
        read_only = true
      }
    }

    service {
      name     = "artifacts"
      port     = "http"
      provider = "consul"

      check {
        name     = "answers"
        type     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "nginx" {
      driver       = "exec"
      user         = "www-data"
      kill_signal  = "SIGQUIT"
      kill_timeout = "30s"

      config {
        command = "/usr/sbin/nginx"
        args    = ["-e", "stderr", "-p", "/local", "-c", "/local/nginx.conf"]
      }

      template {
        data        = file("configs/nginx/artifacts.conf")
        destination = "local/nginx.conf"
        change_mode = "noop"
      }

      dynamic "volume_mount" {
        for_each = { usr = "/usr", lib = "/lib", lib64 = "/lib64", bin = "/bin", artifacts = "/artifacts" }
        content {
          volume      = volume_mount.key
          destination = volume_mount.value
          read_only   = true
        }
      }

      resources {
        cpu        = 50
        memory     = 32
        memory_max = 128
      }
    }
  }
}
