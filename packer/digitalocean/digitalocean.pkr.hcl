# DigitalOcean: a snapshot from DigitalOcean's Debian 12. Credentials: DIGITALOCEAN_TOKEN in the environment.

packer {
  required_plugins {
    digitalocean = {
      source  = "github.com/digitalocean/digitalocean"
      version = "~> 1.4"
    }
  }
}

variable "digitalocean_region" {
  type        = string
  default     = "fra1"
  description = "Region in which it is built and kept."
}

variable "digitalocean_size" {
  type        = string
  default     = "s-1vcpu-2gb"
  description = "Machine that builds it; hosts need a disk at least as large."
}

source "digitalocean" "flowplatform" {
  image         = "debian-12-x64"
  region        = var.digitalocean_region
  size          = var.digitalocean_size
  snapshot_name = local.unique
  ssh_username  = "root"
  ssh_timeout   = local.wait
  tags          = ["flowplatform-image"]
}

build {
  sources = ["source.digitalocean.flowplatform"]

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
