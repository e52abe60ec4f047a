# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = length(var.zones) > 0
      error_message = "zones takes the names of the compute clusters over which machines are spread, for example [\"cluster-1\"]."
    }

    precondition {
      condition     = alltrue([for h in local.hardware : h.cpus >= 1 && h.memory >= 1024])
      error_message = "A size is processors x GB of memory here, for example \"2x4\"."
    }
  }
}

data "vsphere_datacenter" "here" {
  name = var.datacenter
}

data "vsphere_compute_cluster" "zone" {
  for_each = toset(local.zones)

  name          = each.value
  datacenter_id = data.vsphere_datacenter.here.id
}

data "vsphere_datastore" "disks" {
  name          = var.datastore
  datacenter_id = data.vsphere_datacenter.here.id
}

data "vsphere_network" "hosts" {
  name          = var.network.name
  datacenter_id = data.vsphere_datacenter.here.id
}

data "vsphere_virtual_machine" "debian" {
  name          = local.image
  datacenter_id = data.vsphere_datacenter.here.id
}

data "vsphere_storage_policy" "disks" {
  count = var.storage_policy == "" ? 0 : 1

  name = var.storage_policy
}

resource "vsphere_virtual_machine" "host" {
  for_each = local.machines

  name                       = each.key
  folder                     = var.folder
  resource_pool_id           = data.vsphere_compute_cluster.zone[each.value.zone].resource_pool_id
  datastore_id               = data.vsphere_datastore.disks.id
  storage_policy_id          = one(data.vsphere_storage_policy.disks[*].id)
  num_cpus                   = local.hardware[each.key].cpus
  memory                     = local.hardware[each.key].memory
  guest_id                   = data.vsphere_virtual_machine.debian.guest_id
  firmware                   = data.vsphere_virtual_machine.debian.firmware
  scsi_type                  = data.vsphere_virtual_machine.debian.scsi_type
  wait_for_guest_net_timeout = 0 # the addresses are known

  network_interface {
    network_id = data.vsphere_network.hosts.id
  }

  disk {
    label             = "disk0"
    size              = each.value.disk_gb
    thin_provisioned  = true
    storage_policy_id = one(data.vsphere_storage_policy.disks[*].id)
  }

  clone {
    template_uuid = data.vsphere_virtual_machine.debian.id
  }

  extra_config = {
    "guestinfo.userdata"          = base64encode(module.machines.user_data[each.key])
    "guestinfo.userdata.encoding" = "base64"
    "guestinfo.metadata" = base64encode(jsonencode({
      instance-id    = each.key
      local-hostname = each.key
      network = {
        version = 2
        ethernets = { lan = {
          match       = { name = "e*" }
          addresses   = ["${local.hardware[each.key].address}/${split("/", var.network.cidr)[1]}"]
          gateway4    = var.network.gateway
          nameservers = { addresses = var.network.dns }
        } }
      }
    }))
    "guestinfo.metadata.encoding" = "base64"
  }

  # A newer image is for new machines: it must never replace one that runs.
  lifecycle {
    ignore_changes = [clone, extra_config, guest_id, firmware, scsi_type]
  }

  depends_on = [terraform_data.inputs]
}

resource "vsphere_compute_cluster_vm_anti_affinity_rule" "servers" {
  for_each = { for zone, names in { for name, m in local.machines : m.zone => name... if m.kind == "server" } : zone => names if var.spread && length(names) > 1 }

  name                = "${var.name}-servers"
  compute_cluster_id  = data.vsphere_compute_cluster.zone[each.key].id
  virtual_machine_ids = [for name in each.value : vsphere_virtual_machine.host[name].id]
  mandatory           = false
}

# vSphere itself has no firewall: each host's nftables, which the cluster sets up, is it.
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
