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

  validation {
    condition     = alltrue([for h in var.hosts : can(regex("^[a-z][a-z0-9-]{0,61}[a-z0-9]$", h.name))])
    error_message = "Each host's name takes 2 to 63 letters a-z, digits and -, and begins with a letter."
  }

  validation {
    condition     = length(distinct(var.hosts[*].name)) == length(var.hosts) && length(distinct(var.hosts[*].private_address)) == length(var.hosts)
    error_message = "Two hosts have the same name or the same private_address."
  }

  validation {
    condition     = alltrue([for h in var.hosts : can(cidrhost("${h.private_address}/${strcontains(h.private_address, ":") ? 128 : 32}", 0)) && !startswith(h.private_address, "127.")])
    error_message = "Each host's private_address is an IP address of one of its interfaces, under which the other hosts reach it."
  }

  validation {
    condition     = alltrue([for h in var.hosts : length(h.roles) > 0 && length(setsubtract(h.roles, ["server", "data", "worker", "front-door"])) == 0])
    error_message = "Each host needs one or more of the roles server, data, worker and front-door."
  }

  validation {
    condition     = contains([1, 3, 5], length([for h in var.hosts : h if contains(h.roles, "server")]))
    error_message = "The number of hosts with role server must be 1 (no failure is survived), 3 or 5."
  }

  validation {
    condition     = length([for h in var.hosts : h if contains(h.roles, "data")]) == 1
    error_message = "Exactly one host has role data."
  }

  validation {
    condition     = length([for h in var.hosts : h if contains(h.roles, "worker")]) > 0 && length([for h in var.hosts : h if contains(h.roles, "front-door")]) > 0
    error_message = "At least one host has role worker, and at least one role front-door."
  }
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
