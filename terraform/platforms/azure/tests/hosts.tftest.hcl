# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "azurerm" {}

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
    condition     = !contains(keys(azurerm_public_ip.host), "prod-data-1") && length(azurerm_public_ip.host) == 5
    error_message = "The data host alone has no public address."
  }

  assert {
    condition     = output.hosts[0].address == azurerm_network_interface.host["prod-data-1"].private_ip_address && output.hosts[0].jump == azurerm_public_ip.host["prod-server-1"].ip_address
    error_message = "The data host is reached at its private address, through the first server."
  }

  assert {
    condition     = [for n in [1, 2, 3] : azurerm_linux_virtual_machine.host["prod-server-${n}"].zone] == ["1", "2", "3"]
    error_message = "The servers are spread over three zones."
  }

  assert {
    condition     = azurerm_linux_virtual_machine.host["prod-server-1"].os_disk[0].disk_size_gb == 30 && azurerm_linux_virtual_machine.host["prod-data-1"].os_disk[0].disk_size_gb == 100
    error_message = "A disk has what was asked for, and what Debian's image has at least."
  }

  assert {
    condition     = azurerm_linux_virtual_machine.host["prod-data-1"].source_image_reference[0].offer == "debian-12" && azurerm_linux_virtual_machine.host["prod-data-1"].disable_password_authentication
    error_message = "Machines run Debian 12 and let nobody in with a password."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for key, r in azurerm_network_security_rule.opening : "${r.network_security_group_name} ${r.destination_port_range} ${r.source_address_prefix} ${r.priority}"]) == "prod-doors 8443 198.51.100.0/24 100, prod-doors 22 203.0.113.0/24 101, prod-hosts 22 203.0.113.0/24 101"
    error_message = "SSH is open from allowed networks, the front door from its networks on the front doors, and nothing else."
  }

  assert {
    condition     = [for name, a in azurerm_network_interface_security_group_association.host : name if a.network_security_group_id == azurerm_network_security_group.hosts["doors"].id] == ["prod-front-1", "prod-front-2"]
    error_message = "Only the front doors are in the group of the front doors."
  }
}

run "root" {
  command = plan

  variables {
    ssh = { public_keys = ["ssh-ed25519 AAAA you@laptop"] }
  }

  expect_failures = [terraform_data.inputs]
}

run "a_newer_image_is_for_new_machines" {
  variables {
    image   = "/images/new"
    workers = { count = 4 }
  }

  assert {
    condition     = azurerm_linux_virtual_machine.host["prod-server-1"].source_image_id != "/images/new" && length(azurerm_linux_virtual_machine.host["prod-server-1"].source_image_reference) == 1
    error_message = "A machine that runs must not be replaced by a newer image."
  }

  assert {
    condition     = azurerm_linux_virtual_machine.host["prod-worker-4"].source_image_id == "/images/new" && length(azurerm_linux_virtual_machine.host["prod-worker-4"].source_image_reference) == 0
    error_message = "A new machine is made from the new image."
  }
}
