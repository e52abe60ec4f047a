# One image for every role of a cluster's hosts: Debian with the platform's bundle unpacked and its installer run, and nothing else: no secret, no
# identity. A host that is made from it starts in seconds and needs no network for its software; what it becomes, flowcluster tells it.
#
#   packer init packer/aws
#   packer build -var bundle=dist/flowplatform-1.4.0-amd64.tar.gz -var bundle_sum=… packer/aws
#
# This file is a part of every platform's template: what they all take, and what is run on the machine that becomes the image. Packer wants the plugin of
# every source in a template, also of those that aren't built: so each platform is a directory of its own with its source.

variable "bundle" {
  type        = string
  description = "The bundle that make bundle has made, for example dist/flowplatform-1.4.0-amd64.tar.gz."

  validation {
    condition     = can(regex("/?flowplatform-[0-9A-Za-z.-]+-(amd64|arm64)[.]tar[.]gz$", var.bundle))
    error_message = "Give the file that make bundle has made: its name is like flowplatform-1.4.0-amd64.tar.gz."
  }
}

variable "bundle_sum" {
  type        = string
  description = "SHA-256 sum of the bundle, as it stands in the file beside it."

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.bundle_sum))
    error_message = "The sum has 64 hexadecimal digits: cut -c1-64 dist/flowplatform-….tar.gz.sha256 prints it."
  }
}

variable "image_name" {
  type        = string
  default     = "flowplatform"
  description = "Name of the image; what names must differ by gets the time appended."
}

variable "disk_size_gb" {
  type        = number
  default     = 10
  description = "Size of the image's disk in GB; a host's is at least as large and grows into what it has."

  validation {
    condition     = var.disk_size_gb >= 6 && var.disk_size_gb <= 1000
    error_message = "6 to 1000 GB: Debian, the packages of all roles and the bundle take about 3."
  }
}

locals {
  version = regex_replace(basename(var.bundle), "^flowplatform-(.*)-(amd64|arm64)[.]tar[.]gz$", "$1")
  stamp   = formatdate("YYYYMMDDhhmm", timestamp())
  unique  = "${var.image_name}-${replace(local.version, ".", "-")}-${local.stamp}"
  about   = "Flow Orchestration Platform ${local.version} on Debian 12"
  wait    = "15m"

  uploaded = "/tmp/flowplatform.tar.gz"
  # The installer of make up, of bare metal and of every cloud; and last of all: what makes one machine differ from another.
  scripts     = ["${path.root}/../provision", "${path.root}/../clean"]
  environment = ["BUNDLE=/tmp/flowplatform.tar.gz", "BUNDLE_SUM=${var.bundle_sum}"]
  as_root     = "chmod +x {{ .Path }}; sudo -n env {{ .Vars }} {{ .Path }}"
}
