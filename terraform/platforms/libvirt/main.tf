# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = length(var.zones) == 0
      error_message = "One libvirt is one zone: leave zones out."
    }

    precondition {
      condition     = alltrue([for h in local.hardware : h.cpus >= 1 && h.memory >= 1024])
      error_message = "A size is processors x GB of memory here, for example \"2x4\"."
    }
  }
}

resource "libvirt_network" "cluster" {
  count = var.network.bridge == "" ? 1 : 0

  name      = var.name
  mode      = "nat"
  addresses = [var.network.cidr]
  autostart = true

  dhcp {
    enabled = false
  }

  dns {
    enabled = true
  }
}

resource "libvirt_volume" "image" {
  name   = "${var.name}-image.qcow2"
  pool   = var.pool
  source = local.image
  format = "qcow2"

  # A newer image must not take the disks of running machines away.
  lifecycle {
    ignore_changes = [source]
  }
}

resource "libvirt_volume" "disk" {
  for_each = local.machines

  name           = "${each.key}.qcow2"
  pool           = var.pool
  base_volume_id = libvirt_volume.image.id
  size           = each.value.disk_gb * pow(1024, 3)
}

resource "libvirt_cloudinit_disk" "host" {
  for_each = local.machines

  name      = "${each.key}-cloud-init.iso"
  pool      = var.pool
  user_data = module.machines.user_data[each.key]
  meta_data = jsonencode({ instance-id = each.key, local-hostname = each.key })
  network_config = jsonencode({
    version = 2
    ethernets = { lan = {
      match       = { name = "e*" }
      addresses   = ["${local.hardware[each.key].address}/${split("/", var.network.cidr)[1]}"]
      gateway4    = local.gateway
      nameservers = { addresses = local.dns }
    } }
  })

  # Read at the first start only.
  lifecycle {
    ignore_changes = [user_data, network_config]
  }
}

resource "libvirt_domain" "host" {
  for_each = local.machines

  name      = each.key
  vcpu      = local.hardware[each.key].cpus
  memory    = local.hardware[each.key].memory
  cloudinit = libvirt_cloudinit_disk.host[each.key].id
  autostart = true

  cpu {
    mode = "host-passthrough"
  }

  disk {
    volume_id = libvirt_volume.disk[each.key].id
  }

  network_interface {
    network_id = one(libvirt_network.cluster[*].id)
    bridge     = var.network.bridge == "" ? null : var.network.bridge
  }

  # Debian's cloud image doesn't start without one.
  console {
    type        = "pty"
    target_type = "serial"
    target_port = "0"
  }

  depends_on = [terraform_data.inputs]
}

# The network hides the machines; on a bridge of your own each host's nftables, which the cluster sets up, is the firewall.
locals {
  hosts = [for name, m in local.machines : {
    name            = name
    address         = local.hardware[name].address
    port            = 22
    private_address = local.hardware[name].address
    roles           = m.roles
    class           = m.class
    zone            = m.zone
    jump            = ""
  }]
}
