# The same in every platform, byte for byte: what only one platform knows is in its platform.tf.

variable "name" {
  type        = string
  description = "Name of the cluster: letters a-z, digits and -, for example prod. Machines, networks and firewalls bear it."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "name takes 2 to 20 letters a-z, digits and -, and begins with a letter, for example prod."
  }
}

variable "bundle" {
  type        = string
  description = "File that make bundle has made: all that hosts get. It is the version of the cluster; another file is an upgrade."

  validation {
    condition     = try(fileexists(var.bundle), false)
    error_message = "There is no such file. Make one with: make bundle VERSION=1.0.0"
  }
}

variable "operator_dir" {
  type        = string
  description = "Your own directory for this cluster's keys and tokens. It is made if it isn't there (0700). Back it up; nothing of it is in Terraform's state."

  validation {
    condition     = startswith(var.operator_dir, "/") || startswith(var.operator_dir, "~/")
    error_message = "operator_dir must be an absolute path, for example ~/clusters/prod: it outlives this checkout."
  }
}

variable "ssh" {
  type = object({
    user             = optional(string, "root")
    private_key_file = optional(string, "")
    public_keys      = optional(list(string), [])
  })
  description = "How the hosts are reached: user (root, or one who may sudo without a password), private_key_file (\"\": what your SSH agent and configuration have), public_keys that new machines get."

  validation {
    condition     = var.ssh.private_key_file == "" || try(fileexists(var.ssh.private_key_file), false)
    error_message = "ssh.private_key_file names no file. Leave it out to use your SSH agent."
  }

  validation {
    condition     = alltrue([for k in var.ssh.public_keys : can(regex("^(ssh-|ecdsa-|sk-)", k))])
    error_message = "ssh.public_keys takes public keys in one line each, for example \"ssh-ed25519 AAAA… you@laptop\"."
  }
}

variable "allowed_networks" {
  type        = list(string)
  description = "Networks from which SSH is open, as CIDR, for example [\"203.0.113.0/24\"]. Nobody else reaches anything but the front door."

  validation {
    condition     = length(var.allowed_networks) > 0 && alltrue([for n in var.allowed_networks : can(cidrhost(n, 0))])
    error_message = "allowed_networks takes at least one network as CIDR, for example [\"203.0.113.7/32\"]."
  }

  validation {
    condition     = !anytrue([for n in var.allowed_networks : endswith(n, "/0")])
    error_message = "allowed_networks would open SSH to everybody. Name the networks that you work from."
  }
}

variable "front_door" {
  type = object({
    port     = optional(number, 8080)
    networks = optional(list(string), ["0.0.0.0/0"])
    count    = optional(number)
    size     = optional(string)
  })
  default     = {}
  description = "The address that users know: its port, the networks that reach it, and, where the platform makes machines, how many of its own and of which size (count null: the front door runs on the workers)."

  validation {
    condition     = var.front_door.port >= 1 && var.front_door.port <= 65535 && floor(var.front_door.port) == var.front_door.port
    error_message = "front_door.port must be a whole number from 1 to 65535, for example 8080."
  }

  validation {
    condition     = try(var.front_door.count >= 1 && var.front_door.count <= 20 && floor(var.front_door.count) == var.front_door.count, var.front_door.count == null)
    error_message = "front_door.count must be from 1 to 20; leave it out to have the front door on the workers."
  }

  validation {
    condition     = alltrue([for n in var.front_door.networks : can(cidrhost(n, 0))])
    error_message = "front_door.networks takes networks as CIDR, for example [\"0.0.0.0/0\"] for everybody."
  }
}

variable "servers" {
  type = object({
    count   = optional(number, 3)
    size    = optional(string)
    disk_gb = optional(number, 20)
  })
  default     = null
  description = "Consul's and Nomad's servers: 1, 3 or 5, their size in the platform's own words, their disk. null: the platform's default; must be null where you write the hosts yourself."

  validation {
    condition     = var.servers == null || contains([1, 3, 5], try(var.servers.count, 3))
    error_message = "servers.count must be 1 (no failure is survived), 3 or 5."
  }

  validation {
    condition     = var.servers == null || try(var.servers.disk_gb >= 10, false)
    error_message = "servers.disk_gb must be at least 10."
  }
}

variable "workers" {
  type = object({
    count   = optional(number, 2)
    size    = optional(string)
    disk_gb = optional(number, 20)
    class   = optional(string, "")
  })
  default     = null
  description = "Machines that run gateways, orchestrators and workers. null: the platform's default; must be null where you write the hosts yourself."

  validation {
    condition     = var.workers == null || try(var.workers.count >= 1 && var.workers.count <= 1000 && floor(var.workers.count) == var.workers.count, false)
    error_message = "workers.count must be a whole number from 1 to 1000."
  }

  validation {
    condition     = var.workers == null || try(var.workers.disk_gb >= 10, false)
    error_message = "workers.disk_gb must be at least 10."
  }
}

variable "data" {
  type = object({
    size    = optional(string)
    disk_gb = optional(number, 100)
  })
  default     = null
  description = "The machine with PostgreSQL, RabbitMQ and Redis. It has no public address. null: the platform's default; must be null where you write the hosts yourself."

  validation {
    condition     = var.data == null || try(var.data.disk_gb >= 10, false)
    error_message = "data.disk_gb must be at least 10."
  }
}

variable "image" {
  type        = string
  default     = null
  description = "Image of new machines in the platform's own words: Debian 12, or one that packer/ made. null: the platform's Debian 12."
}

variable "zones" {
  type        = list(string)
  default     = []
  description = "Zones over which machines are spread, in the platform's own words. Empty: the platform's default."

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones) && !contains(var.zones, "")
    error_message = "zones must name each zone once."
  }
}

variable "on_destroy" {
  type        = string
  default     = "keep"
  description = "What terraform destroy does with data on machines that stay: keep (volumes stay) or erase (nothing does). Machines that Terraform made are gone either way."

  validation {
    condition     = contains(["keep", "erase"], var.on_destroy)
    error_message = "on_destroy must be keep or erase."
  }
}
