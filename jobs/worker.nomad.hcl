# Worker: runs flows. How many there are is the orchestrators' business once it runs (nomad job run -preserve-counts).

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

variable "worker_count" {
  type        = number
  description = "How many workers to begin with; the autoscaler changes it, for example 2."
}

variable "worker_slots" {
  type        = number
  description = "Executions that a worker runs at once at the most, for example 1000."
}

variable "deny_loopback" {
  type        = bool
  description = "Flows may not call the machine that they run on, where Consul's agent listens: true in a cluster, false where the machine at hand is all there is."
}

variable "worker_pool" {
  type        = string
  description = "The pool whose tasks its workers take; each pool is a job of its own, for example default (job worker) or gpu (job worker-gpu)."
}

locals {
  version = var.version == "" ? var.versions["worker"] : var.version
}

job "worker" {
  id          = var.worker_pool == "default" ? "worker" : "worker-${var.worker_pool}"
  name        = var.worker_pool == "default" ? "worker" : "worker-${var.worker_pool}"
  datacenters = var.datacenters
  type        = "service"

  # Hosts of role worker.
  constraint {
    attribute = "${meta.services}"
    value     = "true"
  }

  group "worker" {
    count = var.worker_count

    # Every change of the count is a deployment too, and blocks the next one: so a short one. By its check all the same, not by the
    # state of the task alone: a release that runs and never gets a session would replace every worker that works.
    update {
      max_parallel      = 1
      canary            = 1
      auto_promote      = true
      auto_revert       = true
      min_healthy_time  = "1s"
      healthy_deadline  = "1m"
      progress_deadline = "3m" # a count that there is no room for is taken back then, too
    }

    # A worker that dies has its successor in the same allocation at once: it takes over the lock file of the dead one, and
    # recovery begins. One that can't stay up goes elsewhere.
    restart {
      attempts = 60
      interval = "1m"
      delay    = "0s"
      mode     = "fail"
    }

    reschedule {
      unlimited      = true
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "30s"
    }

    network {
      port "http" {}
      port "metrics" {}
    }

    service {
      name     = "worker"
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
        interval = "1s"
        timeout  = "1500ms"
      }
    }

    task "worker" {
      driver = "exec"
      user   = "nobody"

      # Longer than a worker takes to end: STOP_GRACE and STOP_PATIENCE are 70 s, then it has handed back what it could not finish.
      # client.max_kill_timeout bounds it, and progress_deadline must be longer.
      kill_timeout = "2m"

      config {
        command = "/local/worker"
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      env {
        BIND_ADDRESS         = "${NOMAD_IP_http}"
        CONSUL_HTTP_ADDR     = var.consul_address
        GATEWAY_URL          = "consul://gateway"
        HTTP_DENY_LOOPBACK   = var.deny_loopback
        LOG_LEVEL            = var.log_level
        MAX_CONCURRENT_FLOWS = var.worker_slots
        MEMORY_LIMIT_MB      = "1024"
        METRICS_PORT         = "${NOMAD_PORT_metrics}"
        NODE_ENV             = var.environment
        ORCHESTRATOR_URL     = "consul://orchestrator"
        PORT                 = "${NOMAD_PORT_http}"
        WORKER_ID            = "${NOMAD_ALLOC_ID}"
        WORKER_POOL          = var.worker_pool
        WORKER_STATE_DIR     = "${NOMAD_ALLOC_DIR}/data"
      }

      artifact {
        source      = "${var.artifacts_url}/worker/${local.version}/worker"
        destination = "local/worker"
        mode        = "file"

        options {
          checksum = "sha256:${local.version}"
        }
      }

      # A changed secret takes effect with the next release, or with nomad job restart -reschedule, one by one: never in all
      # allocations at once.
      template {
        data        = <<-EOT
        {{ with nomadVar "nomad/jobs/worker" -}}
        DATABASE_URL=postgres://flow_worker:{{ .database_password }}@{{ with service "postgres|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.postgres_address}{{ end }}/flow?sslmode=disable
        RABBITMQ_URL=amqp://worker:{{ .rabbitmq_password }}@{{ with service "rabbitmq|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.rabbitmq_address}{{ end }}
        FLOW_NODES_RABBITMQ_URL=amqp://flow_nodes:{{ .flow_nodes_password }}@{{ with service "rabbitmq|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.rabbitmq_address}{{ end }}/flows
        REDIS_URL=redis://worker:{{ .redis_password }}@{{ with service "redis|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.redis_address}{{ end }}
        INTERNAL_TOKEN={{ .internal_token }}
        CREDENTIALS_TOKEN={{ .credentials_token }}
        {{- end }}
        EOT
        destination = "secrets/service.env"
        env         = true
        change_mode = "noop"
      }

      resources {
        cpu        = 200
        memory     = 256
        memory_max = 1280
      }
    }
  }
}
