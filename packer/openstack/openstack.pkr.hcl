# OpenStack: an image from one with Debian 12 and cloud-init. Credentials: OS_CLOUD, or the other variables of OpenStack's own client.

packer {
  required_plugins {
    openstack = {
      source  = "github.com/hashicorp/openstack"
      version = "~> 1.1"
    }
  }
}

variable "openstack_source" {
  type        = string
  default     = "Debian 12"
  description = "Name of the image to begin with."
}

variable "openstack_flavor" {
  type        = string
  default     = "m1.small"
  description = "Flavor of the machine that builds it."
}

variable "openstack_network" {
  type        = string
  default     = ""
  description = "Number of the network of that machine, where there are several."
}

variable "openstack_floating_ip_network" {
  type        = string
  default     = ""
  description = "Network from which it gets an address that Packer can reach, where it needs one."
}

variable "openstack_url" {
  type        = string
  default     = env("OS_AUTH_URL")
  description = "From OS_AUTH_URL unless given."
}

source "openstack" "flowplatform" {
  identity_endpoint   = var.openstack_url
  source_image_name   = var.openstack_source
  flavor              = var.openstack_flavor
  networks            = var.openstack_network == "" ? [] : [var.openstack_network]
  floating_ip_network = var.openstack_floating_ip_network
  image_name          = local.unique
  image_visibility    = "private"
  ssh_username        = "debian"
  ssh_timeout         = local.wait

  metadata = {
    version = local.version
  }
}

build {
  sources = ["source.openstack.flowplatform"]

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
