# What every platform refuses, because variables.tf is the same in all: terraform_test.go runs this where no provider is needed.

override_module {
  target  = module.cluster
  outputs = { front_door = ["https://front-door.example:8080"], next = "" }
}

variables {
  bundle       = "versions.tf" # a file that is there
  operator_dir = "/nowhere"
}

run "name" {
  command = plan
  variables { name = "Prod" }
  expect_failures = [var.name]
}

run "bundle" {
  command = plan
  variables { bundle = "no-such-file.tar.gz" }
  expect_failures = [var.bundle]
}

run "operator_dir" {
  command = plan
  variables { operator_dir = "keys" }
  expect_failures = [var.operator_dir]
}

run "ssh_private_key_file" {
  command = plan
  variables { ssh = { private_key_file = "/no/such/key", public_keys = ["ssh-ed25519 AAAA you@laptop"] } }
  expect_failures = [var.ssh]
}

run "ssh_public_keys" {
  command = plan
  variables { ssh = { public_keys = ["~/.ssh/id_ed25519.pub"] } }
  expect_failures = [var.ssh]
}

run "ssh_from_everywhere" {
  command = plan
  variables { allowed_networks = ["203.0.113.0/24", "::/0"] }
  expect_failures = [var.allowed_networks]
}

run "an_address_for_a_network" {
  command = plan
  variables { allowed_networks = ["203.0.113.7"] }
  expect_failures = [var.allowed_networks]
}

run "nobody_may_log_in" {
  command = plan
  variables { allowed_networks = [] }
  expect_failures = [var.allowed_networks]
}

run "front_door_port" {
  command = plan
  variables { front_door = { port = 70000 } }
  expect_failures = [var.front_door]
}

run "front_door_networks" {
  command = plan
  variables { front_door = { networks = ["everybody"] } }
  expect_failures = [var.front_door]
}

run "no_front_door" {
  command = plan
  variables { front_door = { count = 0 } }
  expect_failures = [var.front_door]
}

run "two_servers" {
  command = plan
  variables { servers = { count = 2 } }
  expect_failures = [var.servers]
}

run "a_server_on_a_stamp" {
  command = plan
  variables { servers = { disk_gb = 1 } }
  expect_failures = [var.servers]
}

run "no_workers" {
  command = plan
  variables { workers = { count = 0 } }
  expect_failures = [var.workers]
}

run "half_a_worker" {
  command = plan
  variables { workers = { count = 1.5 } }
  expect_failures = [var.workers]
}

run "data_on_a_stamp" {
  command = plan
  variables { data = { disk_gb = 1 } }
  expect_failures = [var.data]
}

run "a_zone_twice" {
  command = plan
  variables { zones = ["a", "a"] }
  expect_failures = [var.zones]
}

run "on_destroy" {
  command = plan
  variables { on_destroy = "maybe" }
  expect_failures = [var.on_destroy]
}
