# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "proxmox" {
  mock_resource "proxmox_virtual_environment_vm" {
    defaults = { vm_id = 100 }
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
    workers = { count = 2, size = "4x8", class = "large" }
  }

  assert {
    condition     = jsonencode([for h in output.hosts : h.name]) == jsonencode(["prod-data-1", "prod-server-1", "prod-server-2", "prod-server-3", "prod-worker-1", "prod-worker-2"])
    error_message = "Three servers, two workers and one machine for data are handed out."
  }

  assert {
    condition     = output.hosts[5] == { name = "prod-worker-2", address = "192.168.10.81", port = 22, private_address = "192.168.10.81", roles = tolist(["worker", "front-door"]), class = "large", zone = "pve2", jump = "" }
    error_message = "A host has all that the cluster asks for, and the address of its number."
  }

  assert {
    condition     = [for n in [1, 2, 3] : proxmox_virtual_environment_vm.host["prod-server-${n}"].node_name] == ["pve1", "pve2", "pve3"]
    error_message = "The servers are spread over the nodes."
  }

  assert {
    condition     = proxmox_virtual_environment_vm.host["prod-worker-2"].cpu[0].cores == 4 && proxmox_virtual_environment_vm.host["prod-worker-2"].memory[0].dedicated == 8192 && proxmox_virtual_environment_vm.host["prod-data-1"].disk[0].size == 100
    error_message = "A size is processors x GB of memory; the disk has what was asked for."
  }

  assert {
    condition     = proxmox_virtual_environment_vm.host["prod-data-1"].initialization[0].ip_config[0].ipv4[0].address == "192.168.10.59/24"
    error_message = "cloud-init sets the address."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 1 }
  }

  assert {
    condition     = alltrue([for o in proxmox_virtual_environment_firewall_options.host : o.enabled && o.input_policy == "DROP"])
    error_message = "What no rule lets in is dropped."
  }

  assert {
    condition     = join(", ", [for r in proxmox_virtual_environment_firewall_rules.host["prod-data-1"].rule : "${r.dport} ${r.source}" if r.proto == "tcp"]) == "22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, and nothing else."
  }

  assert {
    condition     = [for name, f in proxmox_virtual_environment_firewall_rules.host : name if contains([for r in f.rule : r.dport], "8443")] == ["prod-front-1"]
    error_message = "The front door is open on the hosts that have it alone."
  }
}

run "no_nodes_and_a_size_of_another_platform" {
  command = plan

  variables {
    zones   = []
    workers = { size = "t3.medium" }
  }

  expect_failures = [terraform_data.inputs]
}
