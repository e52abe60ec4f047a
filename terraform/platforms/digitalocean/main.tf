# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = length(var.zones) == 0
      error_message = "A region of DigitalOcean has no zones: leave zones out."
    }

    precondition {
      condition     = try(var.servers.disk_gb, 20) == 20 && try(var.workers.disk_gb, 20) == 20 && try(var.data.disk_gb, 100) == 100
      error_message = "DigitalOcean's sizes have their disk: leave disk_gb out, and take a larger size."
    }
  }
}

resource "digitalocean_vpc" "cluster" {
  name     = var.name
  region   = var.region
  ip_range = var.cidr
}

# A key that the account has already can't be made again: then leave it out here and add it to the machines by hand.
resource "digitalocean_ssh_key" "operator" {
  for_each = { for i, key in var.ssh.public_keys : tostring(i + 1) => key }

  name       = "${var.name}-${each.key}"
  public_key = each.value
}

resource "digitalocean_droplet" "host" {
  for_each = local.machines

  name      = each.key
  region    = var.region
  size      = each.value.size
  image     = local.image
  vpc_uuid  = digitalocean_vpc.cluster.id
  ssh_keys  = [for key in digitalocean_ssh_key.operator : key.id]
  user_data = module.machines.user_data[each.key]

  # A newer image is for new machines, and so are other keys: neither must ever replace one that runs.
  lifecycle {
    ignore_changes = [image, user_data, ssh_keys]
  }

  depends_on = [terraform_data.inputs]
}

# DigitalOcean gives every machine a public address. The data host's is closed to everybody: SSH reaches it from the other machines.
resource "digitalocean_firewall" "hosts" {
  name        = "${var.name}-hosts"
  droplet_ids = [for droplet in digitalocean_droplet.host : droplet.id]

  inbound_rule {
    protocol         = "tcp"
    port_range       = "1-65535"
    source_addresses = [var.cidr]
  }

  inbound_rule {
    protocol         = "udp"
    port_range       = "1-65535"
    source_addresses = [var.cidr]
  }

  inbound_rule {
    protocol         = "icmp"
    source_addresses = [var.cidr]
  }

  dynamic "outbound_rule" {
    for_each = ["tcp", "udp"]

    content {
      protocol              = outbound_rule.value
      port_range            = "1-65535"
      destination_addresses = ["0.0.0.0/0", "::/0"]
    }
  }
}

resource "digitalocean_firewall" "public" {
  for_each = { hosts = false, doors = true }

  name        = "${var.name}-public-${each.key}"
  droplet_ids = [for name, m in local.machines : digitalocean_droplet.host[name].id if each.value ? m.door : m.public]

  dynamic "inbound_rule" {
    for_each = { for key, o in local.openings : key => o if o.door == each.value }

    content {
      protocol         = "tcp"
      port_range       = tostring(inbound_rule.value.port)
      source_addresses = [inbound_rule.value.network]
    }
  }
}

locals {
  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? digitalocean_droplet.host[name].ipv4_address : digitalocean_droplet.host[name].ipv4_address_private
    port            = 22
    private_address = digitalocean_droplet.host[name].ipv4_address_private
    roles           = m.roles
    class           = m.class
    zone            = m.zone
    jump            = m.public ? "" : digitalocean_droplet.host[module.machines.jump].ipv4_address
  }]
}
