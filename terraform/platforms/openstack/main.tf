# Machines, a network and an address; no more.

data "openstack_networking_network_v2" "external" {
  name     = var.external_network
  external = true
}

data "openstack_images_image_v2" "debian" {
  name        = local.image
  most_recent = true
}

resource "openstack_networking_network_v2" "cluster" {
  name = var.name
}

resource "openstack_networking_subnet_v2" "cluster" {
  name            = var.name
  network_id      = openstack_networking_network_v2.cluster.id
  cidr            = var.cidr
  dns_nameservers = var.dns
}

resource "openstack_networking_router_v2" "cluster" {
  name                = var.name
  external_network_id = data.openstack_networking_network_v2.external.id
}

resource "openstack_networking_router_interface_v2" "cluster" {
  router_id = openstack_networking_router_v2.cluster.id
  subnet_id = openstack_networking_subnet_v2.cluster.id
}

resource "openstack_networking_secgroup_v2" "hosts" {
  name        = "${var.name}-hosts"
  description = "Every host: SSH from allowed networks, everything among each other."
}

resource "openstack_networking_secgroup_v2" "doors" {
  name                 = "${var.name}-doors"
  description          = "Hosts with the front door."
  delete_default_rules = true
}

resource "openstack_networking_secgroup_rule_v2" "among_hosts" {
  direction         = "ingress"
  ethertype         = "IPv4"
  remote_group_id   = openstack_networking_secgroup_v2.hosts.id
  security_group_id = openstack_networking_secgroup_v2.hosts.id
}

resource "openstack_networking_secgroup_rule_v2" "opening" {
  for_each = local.openings

  direction         = "ingress"
  ethertype         = each.value.ipv6 ? "IPv6" : "IPv4"
  protocol          = "tcp"
  port_range_min    = each.value.port
  port_range_max    = each.value.port
  remote_ip_prefix  = each.value.network
  security_group_id = each.value.door ? openstack_networking_secgroup_v2.doors.id : openstack_networking_secgroup_v2.hosts.id
}

# Servers on hypervisors of their own, as far as there are enough.
resource "openstack_compute_servergroup_v2" "servers" {
  name     = "${var.name}-servers"
  policies = ["soft-anti-affinity"]
}

resource "openstack_networking_port_v2" "host" {
  for_each = local.machines

  name               = each.key
  network_id         = openstack_networking_network_v2.cluster.id
  security_group_ids = concat([openstack_networking_secgroup_v2.hosts.id], each.value.door ? [openstack_networking_secgroup_v2.doors.id] : [])

  fixed_ip {
    subnet_id = openstack_networking_subnet_v2.cluster.id
  }
}

resource "openstack_compute_instance_v2" "host" {
  for_each = local.machines

  name              = each.key
  flavor_name       = each.value.size
  availability_zone = each.value.zone == "" ? null : each.value.zone
  user_data         = module.machines.user_data[each.key]

  block_device {
    uuid                  = data.openstack_images_image_v2.debian.id
    source_type           = "image"
    destination_type      = "volume"
    volume_size           = each.value.disk_gb
    volume_type           = var.volume_type
    boot_index            = 0
    delete_on_termination = true
  }

  network {
    port = openstack_networking_port_v2.host[each.key].id
  }

  dynamic "scheduler_hints" {
    for_each = each.value.kind == "server" ? [1] : []

    content {
      group = openstack_compute_servergroup_v2.servers.id
    }
  }

  # A newer image is for new machines, and so is another order of zones: neither must ever replace one that runs.
  lifecycle {
    ignore_changes = [block_device, user_data, availability_zone]
  }
}

resource "openstack_networking_floatingip_v2" "host" {
  for_each = { for name, m in local.machines : name => m if m.public }

  pool        = var.external_network
  description = each.key
}

resource "openstack_networking_floatingip_associate_v2" "host" {
  for_each = { for name, m in local.machines : name => m if m.public }

  floating_ip = openstack_networking_floatingip_v2.host[each.key].address
  port_id     = openstack_networking_port_v2.host[each.key].id

  depends_on = [openstack_networking_router_interface_v2.cluster]
}

locals {
  private = { for name, m in local.machines : name => openstack_networking_port_v2.host[name].all_fixed_ips[0] }

  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? openstack_networking_floatingip_associate_v2.host[name].floating_ip : local.private[name]
    port            = 22
    private_address = local.private[name]
    roles           = m.roles
    class           = m.class
    zone            = m.zone
    jump            = m.public ? "" : openstack_networking_floatingip_associate_v2.host[module.machines.jump].floating_ip
  }]
}
