# What the machines of a cluster are called, what each is for, and in which zone it stands: the same on every platform that makes machines.
# No provider is needed. null takes the default, so that a platform hands its own variables on as they are.

variable "name" {
  type        = string
  description = "Name of the cluster; every machine's name begins with it."
}

variable "servers" {
  type = object({
    count   = optional(number, 3)
    size    = optional(string)
    disk_gb = optional(number, 20)
  })
  default     = {}
  nullable    = false
  description = "As the platform's variable of the same name."
}

variable "workers" {
  type = object({
    count   = optional(number, 2)
    size    = optional(string)
    disk_gb = optional(number, 20)
    class   = optional(string, "")
  })
  default     = {}
  nullable    = false
  description = "As the platform's variable of the same name."
}

variable "data" {
  type = object({
    size    = optional(string)
    disk_gb = optional(number, 100)
  })
  default     = {}
  nullable    = false
  description = "As the platform's variable of the same name."
}

variable "front_door" {
  type = object({
    count = optional(number)
    size  = optional(string)
  })
  default     = {}
  nullable    = false
  description = "Front doors of their own; count null: the workers are the front doors."
}

variable "zones" {
  type        = list(string)
  default     = []
  nullable    = false
  description = "Zones over which each kind of machine is spread in turn. Empty: the machines have no zone."
}

variable "ssh" {
  type = object({
    user        = string
    public_keys = list(string)
  })
  description = "Who may log in, and with which public keys."

  validation {
    condition     = length(var.ssh.public_keys) > 0
    error_message = "ssh.public_keys is empty: nobody could log in to the machines. Give at least one, for example \"ssh-ed25519 AAAA… you@laptop\"."
  }
}

variable "sizes" {
  type = object({
    server     = string
    worker     = string
    data       = string
    front_door = string
  })
  description = "The platform's size of each kind of machine when the user names none."
}
