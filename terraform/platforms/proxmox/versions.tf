terraform {
  required_version = ">= 1.9"

  required_providers {
    proxmox = {
      source  = "bpg/proxmox"
      version = ">= 0.84.0, < 1.0.0" # from here on a disk can be imported from a downloaded image
    }
  }
}
