# terraform test -var-file=example.tfvars; nothing is made: every run only plans.

variables {
  bundle       = "versions.tf" # a file that is there
  operator_dir = "/nonexistent/trial"
}

run "machines_are_shaped_right" {
  command = plan

  assert {
    condition     = jsonencode(keys(terraform_data.machine)) == jsonencode(["trial-data-1", "trial-server-1", "trial-worker-1", "trial-worker-2"])
    error_message = "One server, two workers and one machine for data are made."
  }

  assert {
    condition     = terraform_data.machine["trial-worker-2"].input.address == "10.221.78.42" && terraform_data.machine["trial-data-1"].input.address == "10.221.78.20"
    error_message = "A machine has the address of its number, whichever others there are."
  }

  assert {
    condition     = [for h in local.hosts : h.private_address if contains(h.roles, "front-door")] == ["10.221.78.41", "10.221.78.42"]
    error_message = "The workers are the front doors."
  }
}

run "another_lab_has_other_addresses" {
  command = plan
  variables {
    lab = { directory = "/var/lib/another", number = 79 }
  }

  assert {
    condition     = alltrue([for h in local.hosts : startswith(h.private_address, "10.221.79.")])
    error_message = "The number is part of the addresses."
  }
}

run "a_size_in_words_is_refused" {
  command = plan
  variables {
    workers = { size = "large" }
  }
  expect_failures = [terraform_data.inputs]
}

run "an_image_of_another_platform_is_refused" {
  command = plan
  variables {
    image = "debian-12"
  }
  expect_failures = [terraform_data.inputs]
}

run "a_relative_directory_is_refused" {
  command = plan
  variables {
    lab = { directory = "lab" }
  }
  expect_failures = [var.lab]
}
