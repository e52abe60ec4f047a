# terraform test: every input that is refused, and what becomes of the others. Nothing is reached: every run only plans.

variables {
  name             = "trial"
  bundle           = "main.tf" # any file: a plan only takes its sum
  operator_dir     = "/nonexistent/trial"
  ssh              = { user = "debian" }
  allowed_networks = ["203.0.113.0/24"]
  hosts = [
    { name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data"] },
    { name = "w1", address = "198.51.100.2", private_address = "10.0.0.2", roles = ["worker", "front-door"], zone = "cellar" },
  ]
}

run "hosts_are_shaped_right" {
  command = plan

  assert {
    condition     = output.hosts[0] == { name = "s1", address = "198.51.100.1", port = 22, private_address = "10.0.0.1", roles = tolist(["server", "data"]), class = "", zone = "", jump = "" }
    error_message = "A host that says no more than it must has port 22, no class, no zone and no jump."
  }

  assert {
    condition     = output.front_door == ["https://198.51.100.2:8080"]
    error_message = "The front door is on the host with that role, at port 8080."
  }
}

run "name" {
  command = plan
  variables { name = "Trial" }
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

run "ssh_key" {
  command = plan
  variables { ssh = { private_key_file = "/no/such/key" } }
  expect_failures = [var.ssh]
}

run "everybody_over_ssh" {
  command = plan
  variables { allowed_networks = ["0.0.0.0/0"] }
  expect_failures = [var.allowed_networks]
}

run "no_network" {
  command = plan
  variables { allowed_networks = ["203.0.113.7"] }
  expect_failures = [var.allowed_networks]
}

run "front_door_port" {
  command = plan
  variables { front_door = { port = 70000 } }
  expect_failures = [var.front_door]
}

run "on_destroy" {
  command = plan
  variables { on_destroy = "maybe" }
  expect_failures = [var.on_destroy]
}

run "a_role" {
  command = plan
  variables {
    hosts = [{ name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["king"] }]
  }
  expect_failures = [var.hosts]
}

# On bare metal there is nothing to make: whoever says how many machines there should be has taken the wrong platform.
run "machines_to_make" {
  command = plan
  variables { workers = { count = 3 } }
  expect_failures = [terraform_data.inputs]
}
