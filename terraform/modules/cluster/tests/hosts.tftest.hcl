# terraform test: what the module refuses, and what it does with which host. Nothing is reached: every run only plans.

variables {
  name             = "trial"
  bundle           = "main.tf" # any file: a plan only takes its sum
  operator_dir     = "/nonexistent/trial"
  ssh              = { user = "root", private_key_file = "" }
  allowed_networks = ["203.0.113.0/24"]
  front_door       = { port = 8080, networks = ["0.0.0.0/0"] }
  on_destroy       = "keep"
  hosts = [
    { name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data"] },
    { name = "w1", address = "198.51.100.2", private_address = "10.0.0.2", roles = ["worker", "front-door"], class = "large", zone = "a" },
  ]
}

run "each_host_is_a_member" {
  command = plan

  assert {
    condition     = length(terraform_data.host) == 2 && length(terraform_data.member) == 2
    error_message = "Two hosts must give two members."
  }

  assert {
    condition     = terraform_data.member["w1"].input.program == "/nonexistent/trial/bundle/current/bin/flowcluster"
    error_message = "A host is removed by the program of the bundle that is current, whichever that is then."
  }

  assert {
    condition     = output.front_door == ["https://198.51.100.2:8080"]
    error_message = "The front door is where the hosts of that role are."
  }
}

run "a_change_of_one_host_is_one_of_all" {
  command = plan

  assert {
    condition     = terraform_data.host["s1"].triggers_replace[3] == tolist(["10.0.0.1"]) && terraform_data.host["s1"].triggers_replace[4] == tolist(["10.0.0.1", "10.0.0.2"])
    error_message = "Each host knows the servers and its peers: its firewall lets them in."
  }
}

run "a_step_that_did_not_end_is_done_again" {
  command = plan
  variables {
    operator_dir = "tests/begun" # the directory of somebody whose third apply of s1 was killed
  }

  assert {
    condition     = reverse(terraform_data.host["s1"].triggers_replace)[0] == 3 && reverse(terraform_data.host["w1"].triggers_replace)[0] == 0
    error_message = "What is in the operator's directory must be compared with the state."
  }
}

run "two_servers_are_refused" {
  command = plan
  variables {
    hosts = [
      { name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data"] },
      { name = "s2", address = "198.51.100.2", private_address = "10.0.0.2", roles = ["server", "worker", "front-door"] },
    ]
  }
  expect_failures = [var.hosts]
}

run "two_data_hosts_are_refused" {
  command = plan
  variables {
    hosts = [
      { name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data"] },
      { name = "w1", address = "198.51.100.2", private_address = "10.0.0.2", roles = ["data", "worker", "front-door"] },
    ]
  }
  expect_failures = [var.hosts]
}

run "no_front_door_is_refused" {
  command = plan
  variables {
    hosts = [{ name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data", "worker"] }]
  }
  expect_failures = [var.hosts]
}

run "the_same_address_twice_is_refused" {
  command = plan
  variables {
    hosts = [
      { name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data"] },
      { name = "w1", address = "198.51.100.2", private_address = "10.0.0.1", roles = ["worker", "front-door"] },
    ]
  }
  expect_failures = [var.hosts]
}

run "a_loopback_address_is_refused" {
  command = plan
  variables {
    hosts = [{ name = "s1", address = "198.51.100.1", private_address = "127.0.0.1", roles = ["server", "data", "worker", "front-door"] }]
  }
  expect_failures = [var.hosts]
}

run "an_unknown_role_is_refused" {
  command = plan
  variables {
    hosts = [{ name = "s1", address = "198.51.100.1", private_address = "10.0.0.1", roles = ["server", "data", "worker", "front-door", "king"] }]
  }
  expect_failures = [var.hosts]
}
