# What only this platform knows.

variable "region" {
  type        = string
  description = "Region of the machines, for example eu-central-1. Who you are is in the environment: AWS_PROFILE or AWS_ACCESS_KEY_ID and the others."
}

variable "cidr" {
  type        = string
  default     = "10.78.0.0/16"
  description = "Addresses of the cluster's own network, an IPv4 network of /20 or larger: each zone gets a sixteenth of it."

  validation {
    condition     = can(cidrhost(var.cidr, 1)) && try(tonumber(split("/", var.cidr)[1]) <= 20, false) && !strcontains(var.cidr, ":")
    error_message = "cidr takes an IPv4 network of /20 or larger, for example 10.78.0.0/16."
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { cluster = var.name }
  }
}

data "aws_availability_zones" "here" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_ami" "debian" {
  owners      = ["136693071363"] # Debian's own account
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

locals {
  zones = length(var.zones) > 0 ? var.zones : slice(sort(data.aws_availability_zones.here.names), 0, min(3, length(data.aws_availability_zones.here.names)))
  sizes = { server = "t3.small", worker = "t3.medium", data = "t3.medium", front_door = "t3.small" }
  image = coalesce(var.image, data.aws_ami.debian.id)
}
