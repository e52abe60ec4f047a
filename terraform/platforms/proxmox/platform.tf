# What only this platform knows. Its nodes are the zones.

variable "datastore" {
  type        = string
  default     = "local-lvm"
  description = "Storage for the disks, on every node."
}

variable "image_datastore" {
  type        = string
  default     = "local"
  description = "Storage for the image, on every node. It must allow the content type Import (Datacenter > Storage)."
}

variable "network" {
  type = object({
    bridge  = optional(string, "vmbr0")
    vlan    = optional(number)
    cidr    = string
    gateway = string
    dns     = list(string)
    first   = optional(number, 10)
  })
  description = "Bridge and VLAN of the machines, their network, and where free addresses begin: machines get addresses from there on."

  validation {
    condition     = can(cidrhost(var.network.cidr, 1)) && !strcontains(var.network.cidr, ":")
    error_message = "network.cidr takes an IPv4 network, for example 192.168.10.0/24."
  }
}

# Where Proxmox is and who you are: PROXMOX_VE_ENDPOINT and PROXMOX_VE_API_TOKEN in the environment.
provider "proxmox" {}

locals {
  zones = var.zones
  sizes = { server = "1x2", worker = "2x4", data = "2x4", front_door = "1x2" } # processors x GB of memory
  image = coalesce(var.image, "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2")

  hardware = { for name, m in local.machines : name => {
    cpus    = try(tonumber(split("x", m.size)[0]), 0)
    memory  = try(tonumber(split("x", m.size)[1]), 0) * 1024
    address = cidrhost(var.network.cidr, var.network.first + m.number - 1)
  } }
}
