# Gateway: the only way in. The front door sends to those that are ready; the first user is made through its internal API.

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

variable "deny_loopback" {
  type        = bool
  description = "Credentials that are tried out may not lead to the machine itself; the same as for workers."
}

variable "gateway_count" {
  type        = number
  description = "How many gateways, for example 1 on a single machine, 3 in a cluster."
}

locals {
  version = var.version == "" ? var.versions["gateway"] : var.version
}

job "gateway" {
  datacenters = var.datacenters
  type        = "service"

  # Hosts of role worker.
  constraint {
    attribute = "${meta.services}"
    value     = "true"
  }

  group "gateway" {
    count = var.gateway_count

    # Longer than the front door needs to see that it has gone from Consul.
    shutdown_delay = "4s"

    # A release: one new gateway beside the old ones; when it is ready and stays so, the others follow, else it is taken back.
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
      name     = "gateway"
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

    task "gateway" {
      driver = "exec"
      user   = "nobody"

      # The longest request that it may be answering is ?wait=60s.
      kill_timeout = "75s"

      config {
        command = "/local/gateway"
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      env {
        BIND_ADDRESS         = "${NOMAD_IP_http}"
        CONSUL_HTTP_ADDR     = var.consul_address
        CREDENTIALS_KEY_FILE = "/secrets/credentials.keys"
        GOGC                 = "400" # their heaps are small: collections cost more than the memory
        HTTP_DENY_LOOPBACK   = var.deny_loopback
        LOG_LEVEL            = var.log_level
        METRICS_PORT         = "${NOMAD_PORT_metrics}"
        NODE_ENV             = var.environment
        PORT                 = "${NOMAD_PORT_http}"
      }

      artifact {
        source      = "${var.artifacts_url}/gateway/${local.version}/gateway"
        destination = "local/gateway"
        mode        = "file"

        options {
          checksum = "sha256:${local.version}"
        }
      }

      # A changed secret takes effect with the next release, or with nomad job restart -reschedule, one by one: never in all
      # allocations at once.
      template {
        data        = <<-EOT
        {{ with nomadVar "nomad/jobs/gateway" -}}
        DATABASE_URL=postgres://flow_gateway:{{ .database_password }}@{{ with service "postgres|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.postgres_address}{{ end }}/flow?sslmode=disable
        RABBITMQ_URL=amqp://gateway:{{ .rabbitmq_password }}@{{ with service "rabbitmq|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.rabbitmq_address}{{ end }}
        REDIS_URL=redis://gateway:{{ .redis_password }}@{{ with service "redis|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.redis_address}{{ end }}
        INTERNAL_TOKEN={{ .internal_token }}
        CREDENTIALS_TOKEN={{ .credentials_token }}
        JWT_SECRET={{ .jwt_secret }}
        {{- end }}
        EOT
        destination = "secrets/service.env"
        env         = true
        change_mode = "noop"
      }

      # The keys that encrypt credentials: in a file, not in the environment, which whoever may look into /proc can read. The current
      # one first, then further ones for a rotation (docs/credentials.md).
      template {
        data        = <<-EOT
        {{ with nomadVar "nomad/jobs/gateway" }}{{ .credentials_key }}{{ with .credentials_keys_more.Value }},{{ . }}{{ end }}{{ end }}
        EOT
        destination = "secrets/credentials.keys"
        change_mode = "noop"
      }

      resources {
        cpu        = 400
        memory     = 256
        memory_max = 1024
      }
    }
  }
}
