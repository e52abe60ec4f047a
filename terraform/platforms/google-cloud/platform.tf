# What only this platform knows.

variable "project" {
  type        = string
  description = "Project of the machines. Who you are: gcloud auth application-default login."
}

variable "region" {
  type        = string
  description = "Region of the machines, for example europe-west3."
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

provider "google" {
  project = var.project
  region  = var.region
}

data "google_compute_zones" "here" {
  status = "UP"
}

locals {
  zones = length(var.zones) > 0 ? var.zones : slice(sort(data.google_compute_zones.here.names), 0, min(3, length(data.google_compute_zones.here.names)))
  sizes = { server = "e2-small", worker = "e2-medium", data = "e2-medium", front_door = "e2-small" }
  image = coalesce(var.image, "debian-cloud/debian-12")
}
