# vSphere: a template from a template with Debian 12 and cloud-init (Debian's generic image, or the image of QEMU, imported once). Credentials:
# VSPHERE_SERVER, VSPHERE_USER and VSPHERE_PASSWORD in the environment, as the platform's Terraform module takes them.

packer {
  required_plugins {
    vsphere = {
      source  = "github.com/hashicorp/vsphere"
      version = "~> 1.4"
    }
  }
}

variable "vsphere_server" {
  type        = string
  default     = env("VSPHERE_SERVER")
  description = "vCenter. From VSPHERE_SERVER unless given."
}

variable "vsphere_user" {
  type        = string
  default     = env("VSPHERE_USER")
  description = "From VSPHERE_USER unless given."
}

variable "vsphere_password" {
  type        = string
  default     = env("VSPHERE_PASSWORD")
  sensitive   = true
  description = "From VSPHERE_PASSWORD; don't write it into a file."
}

variable "vsphere_template" {
  type        = string
  default     = "debian-12"
  description = "Template to begin with."
}

variable "vsphere_datacenter" {
  type        = string
  default     = ""
  description = "Datacenter, where there are several."
}

variable "vsphere_cluster" {
  type        = string
  default     = "cluster"
  description = "Cluster whose hosts build it."
}

variable "vsphere_datastore" {
  type        = string
  default     = ""
  description = "Datastore of the template, where there are several."
}

variable "vsphere_ssh_user" {
  type        = string
  default     = "debian"
  description = "User of the template that may sudo without a password; its key: the SSH agent's."
}

source "vsphere-clone" "flowplatform" {
  vcenter_server      = var.vsphere_server
  username            = var.vsphere_user
  password            = var.vsphere_password
  datacenter          = var.vsphere_datacenter
  cluster             = var.vsphere_cluster
  datastore           = var.vsphere_datastore
  template            = var.vsphere_template
  vm_name             = local.unique
  notes               = local.about
  CPUs                = 2
  RAM                 = 2048
  disk_size           = var.disk_size_gb * 1024
  convert_to_template = true
  ssh_username        = var.vsphere_ssh_user
  ssh_agent_auth      = true
  ssh_timeout         = local.wait
  shutdown_command    = "sudo -n systemctl poweroff"
}

build {
  sources = ["source.vsphere-clone.flowplatform"]

  provisioner "file" {
    source      = var.bundle
    destination = local.uploaded
  }

  provisioner "shell" {
    scripts          = local.scripts
    environment_vars = local.environment
    execute_command  = local.as_root
    skip_clean       = true
  }
}
