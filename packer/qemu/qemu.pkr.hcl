# QEMU and KVM: libvirt, Proxmox and OpenStack take the qcow2 that comes out.

packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "~> 1.0"
    }
  }
}

variable "qemu_source" {
  type        = string
  default     = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
  description = "Debian 12 with cloud-init: address or file. packer/base makes one where there is no internet."
}

variable "qemu_source_sum" {
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
  description = "Sum of qemu_source, like sha256:…, or file:… for a list of sums."
}

variable "qemu_accelerator" {
  type        = string
  default     = "kvm"
  description = "kvm, or tcg (emulation: slow, works everywhere)."
}

variable "qemu_output" {
  type        = string
  default     = "dist/image"
  description = "Directory of the image; it must not be there yet."
}

variable "qemu_build_key" {
  type        = string
  description = "Private SSH key that Packer builds with; its public half lies beside it with .pub. make image makes one that lasts as long as the build."
  default     = ""
}

source "qemu" "flowplatform" {
  iso_url          = var.qemu_source
  iso_checksum     = var.qemu_source_sum
  disk_image       = true
  disk_size        = "${var.disk_size_gb}G"
  disk_interface   = "virtio"
  disk_discard     = "unmap"
  net_device       = "virtio-net"
  format           = "qcow2"
  accelerator      = var.qemu_accelerator
  memory           = 2048
  cpus             = 2
  headless         = true
  vm_name          = "${var.image_name}-${local.version}.qcow2"
  output_directory = var.qemu_output
  boot_wait        = "1s"
  shutdown_command = "systemctl poweroff"
  shutdown_timeout = local.wait

  # cloud-init asks Packer's own server, whose address stands in the machine's serial number: no CD has to be made.
  http_content = {
    "/meta-data"   = "instance-id: packer\nlocal-hostname: packer\n"
    "/vendor-data" = ""
    "/user-data"   = <<-TEXT
      #cloud-config
      disable_root: false
      users:
        - name: root
          ssh_authorized_keys: ["${var.qemu_build_key == "" ? "" : trimspace(file("${var.qemu_build_key}.pub"))}"]
    TEXT
  }
  qemuargs = [
    ["-smbios", "type=1,serial=ds=nocloud-net;s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/"],
    ["-cpu", var.qemu_accelerator == "kvm" ? "host" : "max"],
    ["-serial", "file:${var.qemu_output}.log"],
  ]

  ssh_username           = "root" # a user of the build would have to remove itself
  ssh_private_key_file   = var.qemu_build_key
  ssh_timeout            = local.wait
  ssh_handshake_attempts = 200
}

build {
  sources = ["source.qemu.flowplatform"]

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
