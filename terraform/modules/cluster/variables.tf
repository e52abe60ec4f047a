# Turns hosts into a cluster over SSH. No provider is needed: whoever makes the machines hands out this list.

variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "hosts" {
  type = list(object({
    name            = string
    address         = string
    port            = optional(number, 22)
    private_address = string
    roles           = list(string)
    class           = optional(string, "")
    zone            = optional(string, "")
    jump            = optional(string, "")
  }))
  description = "Every host: name, address (SSH), private_address, roles (server, data, worker, front-door), class, zone, jump (an address that SSH goes through)."
}

variable "bundle" {
  type        = string
  description = "File that make bundle has made."
}

variable "operator_dir" {
  type        = string
  description = "The operator's own directory for keys and tokens (0700)."
}

variable "ssh" {
  type = object({
    user             = string
    private_key_file = string
  })
  description = "How the hosts are reached."
}

variable "allowed_networks" {
  type        = list(string)
  description = "Networks from which SSH is open, as CIDR."
}

variable "front_door" {
  type = object({
    port     = number
    networks = list(string)
  })
  description = "Port of the front door, and the networks that reach it."
}

variable "on_destroy" {
  type        = string
  description = "What happens to data on hosts when the cluster is destroyed: keep or erase."
}
