# Front door: NGINX, the only address that users know, on each host of role front-door. It sends to the gateways that Consul
# calls healthy. It speaks HTTPS when the Nomad Variable nomad/jobs/front-door has a certificate and its key, else HTTP.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "front_door_address" {
  type        = string
  description = "Address that it listens on: 0.0.0.0 in a cluster, where the host's firewall says who may come, 127.0.0.1 on a single machine."
}

variable "front_door_port" {
  type        = number
  description = "Port that users come to, for example 8080."
}

job "front-door" {
  datacenters = var.datacenters
  type        = "system"

  # Hosts of role front-door.
  constraint {
    attribute = "${meta.front_door}"
    value     = "true"
  }

  group "front-door" {
    # A fixed port: no canary beside it on one machine, so a host's front door is away while it changes, one host after the other. One that
    # isn't healthy soon goes back to what it was at once: until then nobody comes in there.
    update {
      max_parallel      = 1
      auto_revert       = true
      min_healthy_time  = "1s"
      healthy_deadline  = "1m"
      progress_deadline = "0s"
    }

    restart {
      attempts = 20
      interval = "10m"
      delay    = "250ms"
      mode     = "delay"
    }

    network {
      port "http" {
        static = var.front_door_port
      }

      port "status" {}
    }

    dynamic "volume" {
      for_each = ["usr", "lib", "lib64", "bin"]
      labels   = [volume.value]
      content {
        type      = "host"
        source    = volume.value
        read_only = true
      }
    }

    service {
      name     = "front-door"
      port     = "http"
      provider = "consul"

      check {
        name     = "answers"
        type     = "http"
        port     = "status"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "nginx" {
      driver = "exec"
      user   = "www-data"

      # SIGQUIT lets requests in flight end; worker_shutdown_timeout bounds what would never end by itself.
      kill_signal  = "SIGQUIT"
      kill_timeout = "30s"

      config {
        command = "/usr/sbin/nginx"
        args    = ["-e", "stderr", "-p", "/local", "-c", "/local/nginx.conf"]
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      env {
        FRONT_DOOR_ADDRESS = var.front_door_address
      }

      template {
        data        = file("configs/nginx/front-door.conf")
        destination = "local/nginx.conf"
        change_mode = "noop"
      }

      # How it listens. A new certificate is taken into use without a pause: both parts of it are one file, so that no
      # configuration is ever loaded with one of them.
      template {
        data          = file("configs/nginx/listen.conf")
        destination   = "local/listen.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s"
      }

      template {
        data          = file("configs/nginx/certificate.pem")
        destination   = "secrets/certificate.pem"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s"
      }

      template {
        data        = file("configs/nginx/proxy.conf")
        destination = "local/proxy.conf"
        change_mode = "noop"
      }

      template {
        data        = file("configs/nginx/index.html")
        destination = "local/html/index.html"
        change_mode = "noop"
      }

      # The gateways, as Consul sees them. NGINX keeps what it has, and says so in its log, when it is told to load a
      # configuration that it can't. Not a script: one that times out ends Nomad's executor, and with it the task.
      template {
        data          = file("configs/nginx/gateways.conf")
        destination   = "local/gateways.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s"
      }

      dynamic "volume_mount" {
        for_each = { usr = "/usr", lib = "/lib", lib64 = "/lib64", bin = "/bin" }
        content {
          volume      = volume_mount.key
          destination = volume_mount.value
          read_only   = true
        }
      }

      resources {
        cpu        = 200
        memory     = 64
        memory_max = 512
      }
    }
  }
}
