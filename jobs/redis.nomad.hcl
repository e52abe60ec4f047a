# Redis: live events, rate limits, caches. Nothing that was promised; the platform runs on without it.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "redis_port" {
  type        = number
  description = "Port on the machine. It stays the same over releases, so that no client has to be told, for example 16379."
}

job "redis" {
  datacenters = var.datacenters
  type        = "service"

  group "redis" {
    count = 1

    # One volume, one server: the old one stops before the new one starts.
    update {
      max_parallel     = 1
      min_healthy_time = "2s"
      healthy_deadline = "3m"
    }

    restart {
      attempts = 20
      interval = "10m"
      delay    = "250ms"
      mode     = "delay"
    }

    network {
      port "redis" {
        static = var.redis_port
      }
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

    volume "redis" {
      type   = "host"
      source = "redis"
    }

    service {
      name     = "redis"
      port     = "redis"
      provider = "consul"

      check {
        name     = "listens"
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "redis" {
      driver       = "exec"
      user         = "redis"
      kill_timeout = "30s"

      config {
        command = "/bin/sh"
        args    = ["/local/start.sh"]
      }

      env {
        MEMORY_WATERMARK = "256mb"
        VOLUME           = "/volume"
      }

      template {
        data        = file("configs/redis/start.sh")
        destination = "local/start.sh"
        change_mode = "noop"
      }

      template {
        data        = file("configs/redis/redis.conf")
        destination = "local/redis.conf"
        change_mode = "noop"
      }

      # A changed password takes effect with the next release or restart, not in the middle of everybody's work.
      template {
        data        = file("configs/redis/users.acl")
        destination = "secrets/users.acl"
        change_mode = "noop"
      }

      dynamic "volume_mount" {
        for_each = { usr = "/usr", lib = "/lib", lib64 = "/lib64", bin = "/bin" }
        content {
          volume      = volume_mount.key
          destination = volume_mount.value
          read_only   = true
        }
      }

      volume_mount {
        volume      = "redis"
        destination = "/volume"
      }

      resources {
        cpu        = 100
        memory     = 128
        memory_max = 640
      }
    }
  }
}
