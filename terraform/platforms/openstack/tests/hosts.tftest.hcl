# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "openstack" {
  mock_resource "openstack_networking_port_v2" {
    defaults = { all_fixed_ips = ["10.78.0.5"] }
  }

  mock_resource "openstack_networking_floatingip_v2" {
    defaults = { address = "198.51.100.7" }
  }
}

override_module {
  target  = module.cluster
  outputs = { front_door = ["https://front-door.example:8080"], next = "" }
}

variables {
  bundle       = "versions.tf" # a file that is there
  operator_dir = "/nowhere"
}

run "hosts" {
  variables {
    zones = ["az1", "az2"]
  }

  assert {
    condition     = jsonencode([for h in output.hosts : h.name]) == jsonencode(["prod-data-1", "prod-server-1", "prod-server-2", "prod-server-3", "prod-worker-1", "prod-worker-2"])
    error_message = "Three servers, two workers and one machine for data are handed out."
  }

  assert {
    condition     = output.hosts[0] == { name = "prod-data-1", address = "10.78.0.5", port = 22, private_address = "10.78.0.5", roles = tolist(["data"]), class = "", zone = "az1", jump = "198.51.100.7" }
    error_message = "The data host has no public address; SSH goes through the first server."
  }

  assert {
    condition     = !contains(keys(openstack_networking_floatingip_v2.host), "prod-data-1") && length(openstack_networking_floatingip_v2.host) == 5
    error_message = "Every host but the data host has a floating address."
  }

  assert {
    condition     = output.hosts[1].address == "198.51.100.7" && output.hosts[1].private_address == "10.78.0.5" && output.hosts[1].jump == ""
    error_message = "The other hosts are reached at their floating addresses."
  }

  assert {
    condition     = [for name in ["prod-server-1", "prod-server-2", "prod-server-3"] : openstack_compute_instance_v2.host[name].availability_zone] == ["az1", "az2", "az1"]
    error_message = "Servers are spread over the zones in turn."
  }

  assert {
    condition     = openstack_compute_instance_v2.host["prod-data-1"].block_device[0].volume_size == 100 && openstack_compute_instance_v2.host["prod-data-1"].block_device[0].volume_type == "luks"
    error_message = "The disk has the size and the type that were asked for."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24", "2001:db8::/48"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for r in openstack_networking_secgroup_rule_v2.opening : "${r.ethertype} ${r.port_range_min}-${r.port_range_max} ${r.remote_ip_prefix}"]) == "IPv4 8443-8443 198.51.100.0/24, IPv6 22-22 2001:db8::/48, IPv4 22-22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, the front door from its networks, and nothing else."
  }

  assert {
    condition     = openstack_networking_secgroup_rule_v2.opening["front-door 198.51.100.0/24"].security_group_id == openstack_networking_secgroup_v2.doors.id && openstack_networking_secgroup_rule_v2.opening["ssh 203.0.113.0/24"].security_group_id == openstack_networking_secgroup_v2.hosts.id
    error_message = "The front door's port belongs to the group of the front doors alone."
  }

  assert {
    condition     = [for name, p in openstack_networking_port_v2.host : name if length(p.security_group_ids) == 2] == ["prod-front-1", "prod-front-2"]
    error_message = "Only the front doors are in the group of the front doors."
  }

  assert {
    condition     = openstack_networking_secgroup_rule_v2.among_hosts.remote_group_id == openstack_networking_secgroup_v2.hosts.id
    error_message = "Hosts reach each other."
  }
}

run "an_ipv6_network_for_hosts" {
  command = plan

  variables {
    cidr = "2001:db8::/64"
  }

  expect_failures = [var.cidr]
}
