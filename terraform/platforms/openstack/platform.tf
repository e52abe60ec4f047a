# What only this platform knows.

variable "external_network" {
  type        = string
  description = "Name of the network that floating addresses come from, for example public."
}

variable "cidr" {
  type        = string
  default     = "10.78.0.0/24"
  description = "Addresses of the cluster's own network."

  validation {
    condition     = can(cidrhost(var.cidr, 1)) && !strcontains(var.cidr, ":")
    error_message = "cidr takes an IPv4 network, for example 10.78.0.0/24."
  }
}

variable "dns" {
  type        = list(string)
  default     = ["9.9.9.9", "149.112.112.112"]
  description = "Name servers of the cluster's network."
}

variable "volume_type" {
  type        = string
  default     = null
  description = "Type of the disks, for example one that your cloud encrypts. null: the cloud's default."
}

# Where the cloud is and who you are: OS_CLOUD or OS_AUTH_URL and the others in the environment.
provider "openstack" {}

locals {
  zones = var.zones
  sizes = { server = "m1.small", worker = "m1.medium", data = "m1.medium", front_door = "m1.small" }
  image = coalesce(var.image, "debian-12")
}
