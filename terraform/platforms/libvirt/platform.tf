# What only this platform knows.

variable "uri" {
  type        = string
  default     = "qemu:///system"
  description = "Where libvirt is, for example qemu+ssh://root@kvm.example.org/system."
}

variable "pool" {
  type        = string
  default     = "default"
  description = "Storage pool of libvirt for the image and the disks."
}

variable "network" {
  type = object({
    cidr    = optional(string, "10.78.0.0/24")
    gateway = optional(string, "")
    dns     = optional(list(string), [])
    first   = optional(number, 10)
    bridge  = optional(string, "")
  })
  default     = {}
  description = "bridge: one of your own, for example br0; its network's cidr, gateway and dns must be given, and first is where free addresses begin: machines get addresses from there on. Without a bridge libvirt makes a network that only the machine with libvirt reaches."

  validation {
    condition     = can(cidrhost(var.network.cidr, 1)) && !strcontains(var.network.cidr, ":")
    error_message = "network.cidr takes an IPv4 network, for example 10.78.0.0/24."
  }

  validation {
    condition     = var.network.bridge == "" || (var.network.gateway != "" && length(var.network.dns) > 0)
    error_message = "With a bridge of your own, network.gateway and network.dns must be given: nobody else tells the machines."
  }
}

provider "libvirt" {
  uri = var.uri
}

locals {
  zones   = var.zones
  sizes   = { server = "1x1", worker = "2x4", data = "2x4", front_door = "1x1" } # processors x GB of memory
  image   = coalesce(var.image, "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2")
  gateway = coalesce(var.network.gateway, cidrhost(var.network.cidr, 1))
  dns     = length(var.network.dns) > 0 ? var.network.dns : [local.gateway]

  hardware = { for name, m in local.machines : name => {
    cpus    = try(tonumber(split("x", m.size)[0]), 0)
    memory  = try(tonumber(split("x", m.size)[1]), 0) * 1024
    address = cidrhost(var.network.cidr, var.network.first + m.number - 1)
  } }
}
