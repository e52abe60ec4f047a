# Migrate: brings the schema to what this release needs, as its owner, and ends. Services wait until it has.

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

locals {
  version = var.version == "" ? var.versions["migrate"] : var.version
}

job "migrate" {
  datacenters = var.datacenters
  type        = "batch"

  # Hosts of role worker.
  constraint {
    attribute = "${meta.services}"
    value     = "true"
  }

  group "migrate" {
    count = 1

    restart {
      attempts = 5
      interval = "10m"
      delay    = "2s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "migrate" {
      driver       = "exec"
      user         = "nobody"
      kill_timeout = "60s"

      config {
        command = "/local/migrate"
      }

      # With ACLs its workload identity becomes a token of Consul's that may do what this job needs; without them it says nothing.
      consul {}

      env {
        LOG_LEVEL = var.log_level
        NODE_ENV  = var.environment
      }

      artifact {
        source      = "${var.artifacts_url}/migrate/${local.version}/migrate"
        destination = "local/migrate"
        mode        = "file"

        options {
          checksum = "sha256:${local.version}"
        }
      }

      template {
        data        = <<-EOT
        {{ with nomadVar "nomad/jobs/migrate" -}}
        DATABASE_URL=postgres://flow_owner:{{ .database_password }}@{{ with service "postgres|any" }}{{ with index . 0 }}{{ .Address }}:{{ .Port }}{{ end }}{{ else }}${var.postgres_address}{{ end }}/flow?sslmode=disable
        {{- end }}
        EOT
        destination = "secrets/service.env"
        env         = true
        change_mode = "noop"
      }

      resources {
        cpu        = 100
        memory     = 128
        memory_max = 512
      }
    }
  }
}
