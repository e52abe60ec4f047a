# Prometheus: scrapes everything that registers a port for its metrics in Consul, and judges configs/prometheus/alerts.yml.

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "consul_address" {
  type        = string
  description = "Consul's HTTP address on the machine, for example 127.0.0.1:8500."
}

variable "prometheus_port" {
  type        = number
  description = "Port on the machine for its page and its API, for example 19090. It asks for no password: keep it off public addresses."
}

job "prometheus" {
  datacenters = var.datacenters
  type        = "service"

  # After everything that it watches, when a machine has too little room for all.
  priority = 40

  group "prometheus" {
    count = 1

    # One volume, one server: the old one stops before the new one starts.
    update {
      max_parallel     = 1
      min_healthy_time = "1s"
      healthy_deadline = "2m"
      auto_revert      = true
    }

    restart {
      attempts = 20
      interval = "10m"
      delay    = "250ms"
      mode     = "delay"
    }

    network {
      port "http" {
        static = var.prometheus_port
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

    volume "prometheus" {
      type   = "host"
      source = "prometheus"
    }

    service {
      name     = "prometheus"
      port     = "http"
      provider = "consul"

      meta {
        alloc        = "${NOMAD_ALLOC_ID}"
        metrics_port = "${NOMAD_PORT_http}"
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/-/ready"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "prometheus" {
      driver       = "exec"
      user         = "prometheus"
      kill_timeout = "30s"

      # Its files are bounded by size and by age, whichever comes first. Its own lock keeps an orphan and its successor apart.
      config {
        command = "/usr/bin/prometheus"
        args = [
          "--config.file=/local/prometheus.yml",
          "--storage.tsdb.path=/volume",
          "--storage.tsdb.retention.size=512MB",
          "--storage.tsdb.retention.time=15d",
          "--web.listen-address=${NOMAD_ADDR_http}",
          "--web.max-connections=64",
          "--query.max-concurrency=4",
          "--query.timeout=20s",
          "--log.format=json",
        ]
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      env {
        CONSUL_HTTP_ADDR = var.consul_address
        GOGC             = "50"
        GOMEMLIMIT       = "300MiB"
      }

      # These two are Prometheus' own, with templates that Nomad must not read as its.
      dynamic "template" {
        for_each = ["prometheus.yml", "alerts.yml"]
        content {
          data            = file("configs/prometheus/${template.value}")
          destination     = "local/${template.value}"
          change_mode     = "noop"
          left_delimiter  = "[[nomad"
          right_delimiter = "nomad]]"
        }
      }

      # Prometheus watches them.
      dynamic "template" {
        for_each = ["services.yml", "queues.yml", "nomad.yml", "consul.yml"]
        content {
          data        = file("configs/prometheus/${template.value}")
          destination = "local/targets/${template.value}"
          change_mode = "noop"
        }
      }

      # How it shows itself to the agents where they ask for that; empty elsewhere. It reads them again by itself.
      dynamic "template" {
        for_each = { "ca.pem" = "ca", "certificate.pem" = "certificate", "key.pem" = "key" }
        content {
          data        = "{{ if nomadVarExists \"nomad/jobs/prometheus\" }}{{ with nomadVar \"nomad/jobs/prometheus\" }}{{ .${template.value}.Value }}{{ end }}{{ end }}"
          destination = "secrets/${template.key}"
          change_mode = "noop"
        }
      }

      template {
        data        = "{{ env \"CONSUL_HTTP_TOKEN\" }}"
        destination = "secrets/consul"
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
        volume      = "prometheus"
        destination = "/volume"
      }

      resources {
        cpu        = 50
        memory     = 128
        memory_max = 512
      }
    }
  }
}
