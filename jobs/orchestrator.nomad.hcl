# Orchestrator: leases sessions, grants claims, writes what workers report. One of them is the leader (a lock in Consul).

variable "datacenters" {
  type        = list(string)
  description = "Where it may run, for example [\"dc1\"]."
}

variable "environment" {
  type        = string
  description = "Name of the environment, a label in logs, for example local."
}

variable "log_level" {
  type        = string
  description = "debug, info, warn or error."
}

variable "artifacts_url" {
  type        = string
  description = "Where programs are served, for example http://127.0.0.1:16080."
}

variable "versions" {
  type        = map(string)
  description = "The release of each program: the SHA-256 sum of its binary, by name."
}

variable "version" {
  type        = string
  description = "This release of the program alone, as -var version=SUM; \"\" takes the one that versions names. The SHA-256 sum of its binary."
}

variable "postgres_address" {
  type        = string
  description = "Where PostgreSQL is, as long as Consul doesn't know better, for example 127.0.0.1:15432."
}

variable "rabbitmq_address" {
  type        = string
  description = "Where RabbitMQ is, as long as Consul doesn't know better, for example 127.0.0.1:15671."
}

variable "redis_address" {
  type        = string
  description = "Where Redis is, as long as Consul doesn't know better, for example 127.0.0.1:16379."
}

variable "consul_address" {
  type        = string
  description = "Consul's HTTP address on the machine, for example 127.0.0.1:8500."
}

variable "nomad_address" {
  type        = string
  description = "Nomad's API, through which the leader scales the workers: the task's own socket unix:///secrets/api.sock where ACLs are on, http://127.0.0.1:4646 where they are not."
}

variable "orchestrator_count" {
  type        = number
  description = "How many orchestrators, at least 2: one leads, any of them takes over."
}

locals {
  version = var.version == "" ? var.versions["orchestrator"] : var.version
}

job "orchestrator" {
  datacenters = var.datacenters
  type        = "service"

  # Hosts of role worker.
  constraint {
    attribute = "${meta.services}"
    value     = "true"
  }

  group "orchestrator" {
    count = var.orchestrator_count

    # Workers look up orchestrators in Consul; those that still hold this address have their next try elsewhere.
    shutdown_delay = "1s"

    # A release: one new orchestrator beside the old ones; when it is ready and stays so, the others follow, else it is taken back.
    update {
      max_parallel      = 1
      canary            = 1
      auto_promote      = true
      auto_revert       = true
      min_healthy_time  = "2s"
      healthy_deadline  = "1m"
      progress_deadline = "90s" # Nomad's default would try a bad release again and again for 10 minutes
    }

    restart {
      attempts = 10
      interval = "1m"
      delay    = "250ms"
      mode     = "fail"
    }

    reschedule {
      unlimited      = true
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "30s"
    }

    # One that falls takes as few of them along as can be. Not distinct_hosts: a release puts a canary beside them, also where all hosts have one.
    spread {
      attribute = "${node.unique.name}"
      weight    = 100
    }

    spread {
      attribute = "${meta.zone}"
      weight    = 50
    }

    network {
      port "http" {}
      port "metrics" {}
    }

    service {
      name     = "orchestrator"
      port     = "http"
      provider = "consul"
      tags     = ["version=${substr(local.version, 0, 12)}"]

      meta {
        alloc        = "${NOMAD_ALLOC_ID}"
        metrics_port = "${NOMAD_PORT_metrics}"
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1500ms"
      }
    }

    task "orchestrator" {
      driver = "exec"
      user   = "nobody"

      kill_timeout = "30s"

      config {
        command = "/local/orchestrator"
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      # NOMAD_TOKEN: who this is, as long as it runs. What it may do is an ACL policy for this job (docs/operations.md).
      identity {
        env = true
      }

      env {
        BIND_ADDRESS     = "${NOMAD_IP_http}"
        CONSUL_HTTP_ADDR = var.consul_address
        GOGC             = "400" # their heaps are small: collections cost more than the memory
        INSTANCE_ID      = "${NOMAD_ALLOC_ID}"
        LOG_LEVEL        = var.log_level
        METRICS_PORT     = "${NOMAD_PORT_metrics}"
        NODE_ENV         = var.environment
        NOMAD_ADDR       = var.nomad_address
        PORT             = "${NOMAD_PORT_http}"
      }

      artifact {
        source      = "${var.artifacts_url}/orchestrator/${local.version}/orchestrator"
        destination = "local/orchestrator"
        mode        = "file"

        options {
          checksum = "sha256:${local.version}"
        }
      }

      # A changed secret takes effect with the next release, or with nomad job restart -reschedule, one by one: never in all
      # allocations at once.
      template {
        data        = <<-EOT
        {{ with nomadVar "nomad/jobs/orchestrator" -}}
        DATABASE_URL=postgres://flow_orchestrator:{{ .database_password }}@{{ with service "postgres|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.postgres_address}{{ end }}/flow?sslmode=disable
        RABBITMQ_URL=amqp://orchestrator:{{ .rabbitmq_password }}@{{ with service "rabbitmq|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.rabbitmq_address}{{ end }}
        REDIS_URL=redis://orchestrator:{{ .redis_password }}@{{ with service "redis|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.redis_address}{{ end }}
        INTERNAL_TOKEN={{ .internal_token }}
        {{- end }}
        EOT
        destination = "secrets/service.env"
        env         = true
        change_mode = "noop"
      }

      resources {
        cpu        = 200
        memory     = 256
        memory_max = 1024
      }
    }
  }
}
