# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = try(var.servers.disk_gb, 20) == 20 && try(var.workers.disk_gb, 20) == 20 && try(var.data.disk_gb, 100) == 100
      error_message = "Hetzner's server types have their disk: leave disk_gb out, and take a larger size."
    }
  }
}

resource "hcloud_network" "cluster" {
  name     = var.name
  ip_range = var.cidr
}

resource "hcloud_network_subnet" "cluster" {
  network_id   = hcloud_network.cluster.id
  type         = "cloud"
  network_zone = var.network_zone
  ip_range     = var.cidr
}

# A key that the project has already can't be made again: then leave it out here and add it to the machines by hand.
resource "hcloud_ssh_key" "operator" {
  for_each = { for i, key in var.ssh.public_keys : tostring(i + 1) => key }

  name       = "${var.name}-${each.key}"
  public_key = each.value
}

# It holds for public addresses: inside the network the machines reach each other.
resource "hcloud_firewall" "hosts" {
  for_each = { hosts = false, doors = true }

  name = "${var.name}-${each.key}"

  dynamic "rule" {
    for_each = { for key, o in local.openings : key => o if o.door == each.value }

    content {
      description = rule.key
      direction   = "in"
      protocol    = "tcp"
      port        = tostring(rule.value.port)
      source_ips  = [rule.value.network]
    }
  }
}

# Servers on machines of their own.
resource "hcloud_placement_group" "servers" {
  name = "${var.name}-servers"
  type = "spread"
}

resource "hcloud_server" "host" {
  for_each = local.machines

  name               = each.key
  server_type        = each.value.size
  image              = local.image
  location           = each.value.zone
  ssh_keys           = [for key in hcloud_ssh_key.operator : key.id]
  user_data          = module.machines.user_data[each.key]
  placement_group_id = each.value.kind == "server" ? hcloud_placement_group.servers.id : null
  labels             = { cluster = var.name }

  # A machine without a public address takes no firewall, and needs none.
  firewall_ids = !each.value.public ? [] : concat([hcloud_firewall.hosts["hosts"].id], each.value.door ? [hcloud_firewall.hosts["doors"].id] : [])

  public_net {
    ipv4_enabled = each.value.public
    ipv6_enabled = false
  }

  network {
    subnet_id = hcloud_network_subnet.cluster.id
    ip        = cidrhost(var.cidr, each.value.number + 10)
    alias_ips = []
  }

  # A newer image is for new machines, and so are another order of zones and other keys: none must ever replace one that runs.
  lifecycle {
    ignore_changes = [image, user_data, ssh_keys, location]
  }

  depends_on = [terraform_data.inputs]
}

locals {
  private = { for name, m in local.machines : name => cidrhost(var.cidr, m.number + 10) }

  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? hcloud_server.host[name].ipv4_address : local.private[name]
    port            = 22
    private_address = local.private[name]
    roles           = m.roles
    class           = m.class
    zone            = hcloud_server.host[name].location
    jump            = m.public ? "" : hcloud_server.host[module.machines.jump].ipv4_address
  }]
}
