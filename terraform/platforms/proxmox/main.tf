# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = length(var.zones) > 0
      error_message = "zones takes the names of the Proxmox nodes over which machines are spread, for example [\"pve1\", \"pve2\", \"pve3\"]."
    }

    precondition {
      condition     = alltrue([for h in local.hardware : h.cpus >= 1 && h.memory >= 1024])
      error_message = "A size is processors x GB of memory here, for example \"2x4\"."
    }
  }
}

resource "proxmox_virtual_environment_download_file" "image" {
  for_each = toset(local.zones)

  node_name    = each.value
  datastore_id = var.image_datastore
  content_type = "import"
  file_name    = "${var.name}-image.qcow2"
  url          = local.image
  overwrite    = false
}

resource "proxmox_virtual_environment_vm" "host" {
  for_each = local.machines

  name      = each.key
  node_name = each.value.zone
  tags      = [var.name]
  on_boot   = true

  cpu {
    cores = local.hardware[each.key].cpus
    type  = "host"
  }

  memory {
    dedicated = local.hardware[each.key].memory
  }

  disk {
    datastore_id = var.datastore
    interface    = "scsi0"
    import_from  = proxmox_virtual_environment_download_file.image[each.value.zone].id
    size         = each.value.disk_gb
    discard      = "on"
  }

  network_device {
    bridge   = var.network.bridge
    vlan_id  = var.network.vlan
    firewall = true
  }

  # Debian's cloud image doesn't start without one.
  serial_device {}

  operating_system {
    type = "l26"
  }

  initialization {
    datastore_id = var.datastore

    dns {
      servers = var.network.dns
    }

    ip_config {
      ipv4 {
        address = "${local.hardware[each.key].address}/${split("/", var.network.cidr)[1]}"
        gateway = var.network.gateway
      }
    }

    user_account {
      username = var.ssh.user
      keys     = var.ssh.public_keys
    }
  }

  # A newer image is for new machines, and so are another order of nodes and other keys: none must ever replace one that runs.
  lifecycle {
    ignore_changes = [disk[0].import_from, node_name, initialization]
  }

  depends_on = [terraform_data.inputs]
}

# It works where the datacenter's firewall is switched on. Each host's nftables, which the cluster sets up, stands behind it.
resource "proxmox_virtual_environment_firewall_options" "host" {
  for_each = local.machines

  node_name    = proxmox_virtual_environment_vm.host[each.key].node_name
  vm_id        = proxmox_virtual_environment_vm.host[each.key].vm_id
  enabled      = true
  input_policy = "DROP"
}

resource "proxmox_virtual_environment_firewall_rules" "host" {
  for_each = local.machines

  node_name = proxmox_virtual_environment_vm.host[each.key].node_name
  vm_id     = proxmox_virtual_environment_vm.host[each.key].vm_id

  rule {
    type    = "in"
    action  = "ACCEPT"
    source  = join(",", [for h in local.hardware : h.address])
    comment = "among hosts"
  }

  dynamic "rule" {
    for_each = { for key, o in local.openings : key => o if each.value.door || !o.door }

    content {
      type    = "in"
      action  = "ACCEPT"
      proto   = "tcp"
      dport   = tostring(rule.value.port)
      source  = rule.value.network
      comment = rule.key
    }
  }
}

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
