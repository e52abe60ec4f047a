# What only this platform knows.

variable "datacenter" {
  type        = string
  description = "Name of the datacenter in vCenter. Its compute clusters are the zones."
}

variable "datastore" {
  type        = string
  description = "Name of the datastore for the disks."
}

variable "folder" {
  type        = string
  default     = ""
  description = "Folder for the machines, for example flow/prod. It must be there."
}

variable "storage_policy" {
  type        = string
  default     = ""
  description = "Name of a storage policy, for example \"VM Encryption Policy\": it encrypts the disks where vCenter has a key provider."
}

variable "spread" {
  type        = bool
  default     = true
  description = "Keep the servers of one compute cluster on different ESXi hosts, as far as there are enough. It needs DRS; without it say false."
}

variable "network" {
  type = object({
    name    = string
    cidr    = string
    gateway = string
    dns     = list(string)
    first   = optional(number, 10)
  })
  description = "Port group of the machines, its network, and where free addresses begin: machines get addresses from there on."

  validation {
    condition     = can(cidrhost(var.network.cidr, 1)) && !strcontains(var.network.cidr, ":")
    error_message = "network.cidr takes an IPv4 network, for example 192.168.10.0/24."
  }
}

# Where vCenter is and who you are: VSPHERE_SERVER, VSPHERE_USER, VSPHERE_PASSWORD in the environment.
provider "vsphere" {}

locals {
  zones = var.zones
  sizes = { server = "1x2", worker = "2x4", data = "2x4", front_door = "1x2" } # processors x GB of memory
  image = coalesce(var.image, "debian-12")

  hardware = { for name, m in local.machines : name => {
    cpus    = try(tonumber(split("x", m.size)[0]), 0)
    memory  = try(tonumber(split("x", m.size)[1]), 0) * 1024
    address = cidrhost(var.network.cidr, var.network.first + m.number - 1)
  } }
}
