# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "google" {
  mock_data "google_compute_zones" {
    defaults = { names = ["europe-west3-a", "europe-west3-b", "europe-west3-c"] }
  }

  mock_resource "google_compute_instance" {
    defaults = { network_interface = { network_ip = "10.78.0.5", access_config = { nat_ip = "198.51.100.7" } } }
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
    condition     = [for name, i in google_compute_instance.host : name if length(i.network_interface[0].access_config) == 0] == ["prod-data-1"]
    error_message = "The data host alone has no public address."
  }

  assert {
    condition     = output.hosts[0].address == google_compute_instance.host["prod-data-1"].network_interface[0].network_ip && output.hosts[0].jump == google_compute_instance.host["prod-server-1"].network_interface[0].access_config[0].nat_ip
    error_message = "The data host is reached at its private address, through the first server."
  }

  assert {
    condition     = [for n in [1, 2, 3] : google_compute_instance.host["prod-server-${n}"].zone] == ["europe-west3-a", "europe-west3-b", "europe-west3-c"]
    error_message = "The servers are spread over three zones."
  }

  assert {
    condition     = google_compute_instance.host["prod-data-1"].boot_disk[0].initialize_params[0].size == 100 && startswith(google_compute_instance.host["prod-data-1"].metadata["ssh-keys"], "ops:ssh-ed25519 ")
    error_message = "The disk has the size that was asked for; the account and its key are made."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for r in google_compute_firewall.opening : "${r.target_tags[0]} ${r.allow[0].ports[0]} ${r.source_ranges[0]}"]) == "prod-door 8443 198.51.100.0/24, prod-host 22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, the front door from its networks, and nothing else."
  }

  assert {
    condition     = [for name, i in google_compute_instance.host : name if contains(i.tags, "prod-door")] == ["prod-front-1", "prod-front-2"]
    error_message = "Only the front doors have the tag of the front doors."
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
    image   = "debian-cloud/new"
    workers = { count = 4 }
  }

  assert {
    condition     = google_compute_instance.host["prod-server-1"].boot_disk[0].initialize_params[0].image == "debian-cloud/debian-12"
    error_message = "A machine that runs must not be replaced by a newer image."
  }

  assert {
    condition     = google_compute_instance.host["prod-worker-4"].boot_disk[0].initialize_params[0].image == "debian-cloud/new"
    error_message = "A new machine is made from the new image."
  }
}
