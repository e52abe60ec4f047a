# What only this platform knows.

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
  description = "Your machines: Debian 12, reachable over SSH. roles: server, data, worker, front-door, one or several each; private_address is an IP address of an interface on which the hosts reach each other."

  validation {
    condition     = alltrue([for h in var.hosts : length(h.roles) > 0 && length(setsubtract(h.roles, ["server", "data", "worker", "front-door"])) == 0])
    error_message = "Each host needs one or more of the roles server, data, worker and front-door."
  }
}
