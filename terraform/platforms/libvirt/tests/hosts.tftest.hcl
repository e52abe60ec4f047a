# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "libvirt" {}

override_module {
  target  = module.cluster
  outputs = { front_door = ["https://front-door.example:8080"], next = "" }
}

variables {
  bundle       = "versions.tf" # a file that is there
  operator_dir = "/nowhere"
}

run "hosts_on_a_network_of_their_own" {
  variables {
    network = {}
  }

  assert {
    condition     = jsonencode([for h in output.hosts : h.name]) == jsonencode(["prod-data-1", "prod-server-1", "prod-server-2", "prod-server-3", "prod-worker-1", "prod-worker-2"])
    error_message = "Three servers, two workers and one machine for data are handed out."
  }

  assert {
    condition     = output.hosts[0] == { name = "prod-data-1", address = "10.78.0.19", port = 22, private_address = "10.78.0.19", roles = tolist(["data"]), class = "", zone = "", jump = "" }
    error_message = "A host has all that the cluster asks for, and the address of its number."
  }

  assert {
    condition     = length(libvirt_network.cluster) == 1 && libvirt_network.cluster[0].mode == "nat" && strcontains(libvirt_cloudinit_disk.host["prod-worker-1"].network_config, "10.78.0.40/24")
    error_message = "Without a bridge libvirt's own network hides the machines; cloud-init sets their addresses."
  }

  assert {
    condition     = libvirt_volume.disk["prod-data-1"].size == 107374182400 && libvirt_domain.host["prod-data-1"].memory == 4096
    error_message = "Disks are in bytes, memory is in MB."
  }
}

run "hosts_on_a_bridge" {
  variables {
    front_door = { count = 1 }
    workers    = { count = 3, size = "4x8", class = "large" }
  }

  assert {
    condition     = length(libvirt_network.cluster) == 0 && alltrue([for d in libvirt_domain.host : d.network_interface[0].bridge == "br0"])
    error_message = "On a bridge of the user's own no network is made."
  }

  assert {
    condition     = [for h in output.hosts : h if h.name == "prod-worker-3"][0].private_address == "192.168.1.182" && [for h in output.hosts : h if h.name == "prod-worker-3"][0].class == "large"
    error_message = "Addresses begin at network.first; the class reaches the host."
  }

  assert {
    condition     = [for h in output.hosts : h.name if contains(h.roles, "front-door")] == ["prod-front-1"]
    error_message = "With a front door of its own no worker is one."
  }
}

run "a_bridge_without_its_gateway" {
  command = plan

  variables {
    network = { bridge = "br0" }
  }

  expect_failures = [var.network]
}

run "zones_and_sizes_that_say_nothing_here" {
  command = plan

  variables {
    zones   = ["a", "b"]
    servers = { size = "t3.small" }
  }

  expect_failures = [terraform_data.inputs]
}
