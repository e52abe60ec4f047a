# PostgreSQL: the truth. One server on a volume of the machine; its roles and passwords come from Nomad Variables.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "postgres_bin" {
  type        = string
  description = "Directory of PostgreSQL's programs, for example /usr/lib/postgresql/15/bin. Its version names the cluster on the volume."
}

variable "postgres_port" {
  type        = number
  description = "Port on the machine. It stays the same over releases, so that no client has to be told, for example 15432."
}

job "postgres" {
  datacenters = var.datacenters
  type        = "service"

  group "postgres" {
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
      port "postgres" {
        static = var.postgres_port
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

    volume "postgres" {
      type   = "host"
      source = "postgres"
    }

    service {
      name     = "postgres"
      port     = "postgres"
      provider = "consul"

      # Not a script: one that times out (on a busy machine) ends Nomad's executor, which leaves the server an orphan.
      check {
        name     = "listens"
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "postgres" {
      driver = "exec"
      user   = "postgres"

      # SIGINT is PostgreSQL's fast shutdown: clients are cut off, everything is written.
      kill_signal  = "SIGINT"
      kill_timeout = "60s"

      config {
        command = "/bin/sh"
        args    = ["/local/start.sh"]
      }

      env {
        POSTGRES_BIN = var.postgres_bin
        VOLUME       = "/volume"
      }

      template {
        data        = file("configs/postgres/start.sh")
        destination = "local/start.sh"
        change_mode = "noop"
      }

      template {
        data        = file("configs/postgres/postgresql.conf")
        destination = "local/postgresql.conf"
        change_mode = "noop"
      }

      template {
        data          = file("configs/postgres/pg_hba.conf")
        destination   = "local/pg_hba.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        data        = file("configs/postgres/database.sql")
        destination = "local/database.sql"
        change_mode = "noop"
      }

      # A changed password takes effect with the next release or restart, not in the middle of everybody's work.
      template {
        data        = file("configs/postgres/roles.sql")
        destination = "secrets/roles.sql"
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
        volume      = "postgres"
        destination = "/volume"
      }

      resources {
        cpu        = 400
        memory     = 512
        memory_max = 2048
      }
    }
  }
}
