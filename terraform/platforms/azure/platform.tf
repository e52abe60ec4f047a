# What only this platform knows.

variable "location" {
  type        = string
  description = "Region of the machines, for example germanywestcentral."
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

variable "encryption_at_host" {
  type        = bool
  default     = false
  description = "Encrypt also what lies between a machine and its disk (the disk itself is encrypted in any case). The subscription must have the feature EncryptionAtHost."
}

# Who you are: az login, and ARM_SUBSCRIPTION_ID in the environment.
provider "azurerm" {
  features {}
}

locals {
  zones = length(var.zones) > 0 ? var.zones : ["1", "2", "3"]
  sizes = { server = "Standard_B2ats_v2", worker = "Standard_B2s_v2", data = "Standard_B2s_v2", front_door = "Standard_B2ats_v2" }
}
