# Proxmox: a template from a template with Debian 12 and cloud-init. Credentials: PROXMOX_USERNAME (user@pam!token) and PROXMOX_TOKEN in the environment.

packer {
  required_plugins {
    proxmox = {
      source  = "github.com/hashicorp/proxmox"
      version = "~> 1.2"
    }
  }
}

variable "proxmox_url" {
  type        = string
  default     = env("PROXMOX_URL")
  description = "Like https://proxmox.example.com:8006/api2/json. From PROXMOX_URL unless given."
}

variable "proxmox_username" {
  type        = string
  default     = env("PROXMOX_USERNAME")
  description = "From PROXMOX_USERNAME unless given."
}

variable "proxmox_token" {
  type        = string
  default     = env("PROXMOX_TOKEN")
  sensitive   = true
  description = "From PROXMOX_TOKEN; don't write it into a file."
}

variable "proxmox_node" {
  type        = string
  default     = "pve"
  description = "Node that builds it."
}

variable "proxmox_template" {
  type        = string
  default     = "debian-12"
  description = "Template to begin with."
}

variable "proxmox_bridge" {
  type        = string
  default     = "vmbr0"
  description = "Bridge over which Packer reaches the machine."
}

source "proxmox-clone" "flowplatform" {
  proxmox_url          = var.proxmox_url
  username             = var.proxmox_username
  token                = var.proxmox_token
  node                 = var.proxmox_node
  clone_vm             = var.proxmox_template
  vm_name              = local.unique
  template_name        = local.unique
  template_description = local.about
  full_clone           = true
  cores                = 2
  memory               = 2048
  os                   = "l26"
  scsi_controller      = "virtio-scsi-single"
  qemu_agent           = true
  cloud_init           = true

  network_adapters {
    bridge = var.proxmox_bridge
    model  = "virtio"
  }

  ssh_username   = "debian"
  ssh_agent_auth = true
  ssh_timeout    = local.wait
}

build {
  sources = ["source.proxmox-clone.flowplatform"]

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
