# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "hcloud" {
  mock_resource "hcloud_network" {
    defaults = { id = "101" }
  }

  mock_resource "hcloud_placement_group" {
    defaults = { id = "102" }
  }

  mock_resource "hcloud_firewall" {
    defaults = { id = "103" }
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
    condition     = [for name, s in hcloud_server.host : name if !s.public_net[0].ipv4_enabled] == ["prod-data-1"] && length(hcloud_server.host["prod-data-1"].firewall_ids) == 0
    error_message = "The data host alone has no public address, and so no firewall."
  }

  assert {
    condition     = output.hosts[0].address == "10.78.0.20" && output.hosts[0].jump == hcloud_server.host["prod-server-1"].ipv4_address && output.hosts[4].private_address == "10.78.0.41"
    error_message = "The data host is reached at the private address of its number, through the first server."
  }

  assert {
    condition     = [for n in [1, 2, 3] : hcloud_server.host["prod-server-${n}"].location] == ["fsn1", "nbg1", "fsn1"] && alltrue([for n in [1, 2, 3] : hcloud_server.host["prod-server-${n}"].placement_group_id == 102])
    error_message = "The servers are spread over the locations, on machines of their own."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24", "2001:db8::/48"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for r in hcloud_firewall.hosts["hosts"].rule : "${r.port} ${r.source_ips[0]}"]) == "22 2001:db8::/48, 22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, and nothing else."
  }

  assert {
    condition     = join(", ", [for r in hcloud_firewall.hosts["doors"].rule : "${r.port} ${r.source_ips[0]}"]) == "8443 198.51.100.0/24"
    error_message = "The front door is open to its networks, and nothing else."
  }

  assert {
    condition     = [for name, s in hcloud_server.host : name if length(s.firewall_ids) == 2] == ["prod-front-1", "prod-front-2"]
    error_message = "Only the front doors have the firewall of the front doors."
  }
}

run "a_disk_that_says_nothing_here" {
  command = plan

  variables {
    data = { disk_gb = 500 }
  }

  expect_failures = [terraform_data.inputs]
}

run "a_newer_image_is_for_new_machines" {
  variables {
    image   = "debian-new"
    workers = { count = 4 }
  }

  assert {
    condition     = hcloud_server.host["prod-server-1"].image == "debian-12"
    error_message = "A machine that runs must not be replaced by a newer image."
  }

  assert {
    condition     = hcloud_server.host["prod-worker-4"].image == "debian-new"
    error_message = "A new machine is made from the new image."
  }
}
