# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "digitalocean" {
  mock_resource "digitalocean_droplet" {
    defaults = { id = "7" }
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
    workers = { count = 2, class = "large" }
  }

  assert {
    condition     = jsonencode([for h in output.hosts : h.name]) == jsonencode(["prod-data-1", "prod-server-1", "prod-server-2", "prod-server-3", "prod-worker-1", "prod-worker-2"])
    error_message = "Three servers, two workers and one machine for data are handed out."
  }

  assert {
    condition     = output.hosts[0].address == digitalocean_droplet.host["prod-data-1"].ipv4_address_private && output.hosts[0].jump == digitalocean_droplet.host["prod-server-1"].ipv4_address && output.hosts[5].address == digitalocean_droplet.host["prod-worker-2"].ipv4_address
    error_message = "The data host is reached at its private address, through the first server."
  }

  assert {
    condition     = length(digitalocean_firewall.hosts.droplet_ids) == 6 && alltrue([for r in digitalocean_firewall.hosts.inbound_rule : r.source_addresses[0] == "10.78.0.0/20"])
    error_message = "Hosts reach each other, and that rule lets nobody else in."
  }

  assert {
    condition     = length(digitalocean_firewall.public["hosts"].droplet_ids) == 5 && length(digitalocean_firewall.public["doors"].droplet_ids) == 2
    error_message = "The data host is in no firewall that lets the outside in; the workers are the front doors."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for key, f in digitalocean_firewall.public : "${key}: ${f.inbound_rule[0].port_range} ${f.inbound_rule[0].source_addresses[0]}"]) == "doors: 8443 198.51.100.0/24, hosts: 22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, the front door from its networks, and nothing else."
  }
}

run "zones_and_disks_that_say_nothing_here" {
  command = plan

  variables {
    zones = ["fra1"]
    data  = { disk_gb = 500 }
  }

  expect_failures = [terraform_data.inputs]
}

run "a_newer_image_is_for_new_machines" {
  variables {
    image   = "debian-new"
    workers = { count = 4 }
  }

  assert {
    condition     = digitalocean_droplet.host["prod-server-1"].image == "debian-12-x64"
    error_message = "A machine that runs must not be replaced by a newer image."
  }

  assert {
    condition     = digitalocean_droplet.host["prod-worker-4"].image == "debian-new"
    error_message = "A new machine is made from the new image."
  }
}
