# Hetzner Cloud: a snapshot from Hetzner's Debian 12. Credentials: HCLOUD_TOKEN in the environment.

packer {
  required_plugins {
    hcloud = {
      source  = "github.com/hetznercloud/hcloud"
      version = "~> 1.6"
    }
  }
}

variable "hetzner_location" {
  type        = string
  default     = "nbg1"
  description = "Where it is built."
}

variable "hetzner_server_type" {
  type        = string
  default     = "cx22"
  description = "Machine that builds it; hosts need a disk at least as large."
}

source "hcloud" "flowplatform" {
  image         = "debian-12"
  location      = var.hetzner_location
  server_type   = var.hetzner_server_type
  snapshot_name = local.unique
  ssh_username  = "root"
  ssh_timeout   = local.wait

  snapshot_labels = {
    name    = var.image_name
    version = local.version
  }
}

build {
  sources = ["source.hcloud.flowplatform"]

  provisioner "file" {
    source      = var.bundle
    destination = local.uploaded
  }

  provisioner "shell" {
    scripts          = local.scripts
    environment_vars = local.environment
    execute_command  = local.as_root
    skip_clean       = true
  }
}
