# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "vsphere" {
  mock_data "vsphere_virtual_machine" {
    defaults = { id = "42000000-0000-4000-8000-000000000000", guest_id = "debian12_64Guest", firmware = "efi", scsi_type = "pvscsi" }
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
    zones   = ["cluster-1", "cluster-2"]
    workers = { count = 2, size = "4x8", class = "large" }
  }

  assert {
    condition     = jsonencode([for h in output.hosts : h.name]) == jsonencode(["prod-data-1", "prod-server-1", "prod-server-2", "prod-server-3", "prod-worker-1", "prod-worker-2"])
    error_message = "Three servers, two workers and one machine for data are handed out."
  }

  assert {
    condition     = output.hosts[5] == { name = "prod-worker-2", address = "192.168.10.81", port = 22, private_address = "192.168.10.81", roles = tolist(["worker", "front-door"]), class = "large", zone = "cluster-2", jump = "" }
    error_message = "A host has all that the cluster asks for, and the address of its number."
  }

  assert {
    condition     = vsphere_virtual_machine.host["prod-worker-2"].num_cpus == 4 && vsphere_virtual_machine.host["prod-worker-2"].memory == 8192
    error_message = "A size is processors x GB of memory."
  }

  assert {
    condition     = strcontains(base64decode(vsphere_virtual_machine.host["prod-data-1"].extra_config["guestinfo.metadata"]), "192.168.10.59/24") && startswith(base64decode(vsphere_virtual_machine.host["prod-data-1"].extra_config["guestinfo.userdata"]), "#cloud-config")
    error_message = "cloud-init is told the address, the name and the keys."
  }

  assert {
    condition     = keys(vsphere_compute_cluster_vm_anti_affinity_rule.servers) == ["cluster-1"] && length(vsphere_compute_cluster_vm_anti_affinity_rule.servers["cluster-1"].virtual_machine_ids) == 2
    error_message = "Servers in the same compute cluster are kept on different ESXi hosts."
  }

  assert {
    condition     = length(data.vsphere_storage_policy.disks) == 1
    error_message = "The storage policy that encrypts is looked up."
  }
}

run "without_drs_and_encryption" {
  variables {
    spread         = false
    storage_policy = ""
  }

  assert {
    condition     = length(vsphere_compute_cluster_vm_anti_affinity_rule.servers) == 0 && length(data.vsphere_storage_policy.disks) == 0
    error_message = "What was switched off is not made."
  }
}

run "no_zones" {
  command = plan

  variables {
    zones = []
  }

  expect_failures = [terraform_data.inputs]
}

run "a_size_of_another_platform" {
  command = plan

  variables {
    workers = { size = "t3.medium" }
  }

  expect_failures = [terraform_data.inputs]
}
