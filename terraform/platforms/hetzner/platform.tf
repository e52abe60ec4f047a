# What only this platform knows.

variable "network_zone" {
  type        = string
  default     = "eu-central"
  description = "Network zone; the locations in zones must belong to it, for example fsn1, nbg1 and hel1 to eu-central."
}

variable "cidr" {
  type        = string
  default     = "10.78.0.0/20"
  description = "Addresses of the cluster's own network."

  validation {
    condition     = can(cidrhost(var.cidr, 1)) && !strcontains(var.cidr, ":")
    error_message = "cidr takes an IPv4 network, for example 10.78.0.0/20."
  }
}

# Who you are: HCLOUD_TOKEN in the environment.
provider "hcloud" {}

locals {
  zones = length(var.zones) > 0 ? var.zones : ["fsn1"] # one location: what is written waits for the data host
  sizes = { server = "cx23", worker = "cx23", data = "cx33", front_door = "cx23" }
  image = coalesce(var.image, "debian-12")
}
