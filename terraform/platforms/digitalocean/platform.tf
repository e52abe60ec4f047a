# What only this platform knows.

variable "region" {
  type        = string
  description = "Region of the machines, for example fra1. A region has no zones."
}

variable "cidr" {
  type        = string
  default     = "10.78.0.0/20"
  description = "Addresses of the cluster's own network; DigitalOcean takes none that another of your networks has."

  validation {
    condition     = can(cidrhost(var.cidr, 1)) && !strcontains(var.cidr, ":")
    error_message = "cidr takes an IPv4 network, for example 10.78.0.0/20."
  }
}

# Who you are: DIGITALOCEAN_TOKEN in the environment.
provider "digitalocean" {}

locals {
  zones = var.zones
  sizes = { server = "s-1vcpu-2gb", worker = "s-2vcpu-4gb", data = "s-2vcpu-4gb", front_door = "s-1vcpu-2gb" }
  image = coalesce(var.image, "debian-12-x64")
}
