# RabbitMQ: tasks and reports. Users, virtual hosts and rights come from definitions that it reads at each start.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "rabbitmq_schedulers" {
  type        = number
  description = "Threads that run the broker's code: as many as there are cores where it has a machine to itself; fewer where it shares one, since a second scheduler costs more in hand-overs than it brings, for example 4."
}

variable "rabbitmq_port" {
  type        = number
  description = "AMQP port on the machine. It stays the same over releases, so that no client has to be told, for example 15671."
}

job "rabbitmq" {
  datacenters = var.datacenters
  type        = "service"

  group "rabbitmq" {
    count = 1

    # One volume, one broker: the old one stops before the new one starts.
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
      port "amqp" {
        static = var.rabbitmq_port
      }

      # Between nodes of a cluster and for rabbitmqctl: a port mapper of its own, beside any that the machine has.
      port "epmd" {}
      port "dist" {}

      port "metrics" {}
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

    volume "rabbitmq" {
      type   = "host"
      source = "rabbitmq"
    }

    service {
      name     = "rabbitmq"
      port     = "amqp"
      provider = "consul"

      meta {
        alloc        = "${NOMAD_ALLOC_ID}"
        metrics_port = "${NOMAD_PORT_metrics}"
      }

      # The listener opens when everything behind it runs. A diagnostics command would start an Erlang VM each time.
      check {
        name     = "listens"
        type     = "tcp"
        interval = "2s"
        timeout  = "2s"
      }
    }

    task "rabbitmq" {
      driver       = "exec"
      user         = "rabbitmq"
      kill_timeout = "60s"

      config {
        command = "/bin/sh"
        args    = ["/local/start.sh"]
      }

      env {
        MEMORY_WATERMARK = "768MiB"
        SCHEDULERS       = "${var.rabbitmq_schedulers}"
        VOLUME           = "/volume"
      }

      template {
        data        = file("configs/rabbitmq/start.sh")
        destination = "local/start.sh"
        change_mode = "noop"
      }

      template {
        data        = file("configs/rabbitmq/rabbitmq.conf")
        destination = "local/rabbitmq.conf"
        change_mode = "noop"
      }

      # A changed password takes effect with the next release or restart, not in the middle of everybody's work.
      template {
        data        = file("configs/rabbitmq/definitions.json")
        destination = "secrets/definitions.json"
        change_mode = "noop"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/rabbitmq\" }}{{ .cookie }}{{ end }}"
        destination = "secrets/cookie"
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
        volume      = "rabbitmq"
        destination = "/volume"
      }

      resources {
        cpu        = 400
        memory     = 512
        memory_max = 1536
      }
    }
  }
}
