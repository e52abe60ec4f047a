# terraform test, in this directory; nothing is needed.

variables {
  name  = "prod"
  ssh   = { user = "root", public_keys = ["ssh-ed25519 AAAA you@laptop"] }
  sizes = { server = "s", worker = "w", data = "d", front_door = "f" }
}

run "the_defaults" {
  command = plan

  variables {
    servers = null
    workers = null
    data    = null
  }

  assert {
    condition     = join(" ", keys(output.machines)) == "prod-data-1 prod-server-1 prod-server-2 prod-server-3 prod-worker-1 prod-worker-2"
    error_message = "By default there are three servers, two workers and one machine for data."
  }

  assert {
    condition     = output.machines["prod-worker-2"].roles == tolist(["worker", "front-door"]) && output.machines["prod-worker-2"].door
    error_message = "Without front doors of their own the workers are the front doors."
  }

  assert {
    condition     = [for name, m in output.machines : name if !m.public] == ["prod-data-1"]
    error_message = "The data machine alone must have no public address."
  }

  assert {
    condition     = output.machines["prod-data-1"].size == "d" && output.machines["prod-data-1"].disk_gb == 100 && output.machines["prod-server-1"].size == "s"
    error_message = "Sizes that the user doesn't name are the platform's."
  }
}

run "front_doors_of_their_own_in_zones" {
  command = plan

  variables {
    servers    = { count = 5 }
    workers    = { count = 4, size = "big", class = "large" }
    front_door = { count = 2 }
    zones      = ["a", "b", "c"]
  }

  assert {
    condition     = [for name, m in output.machines : name if m.door] == ["prod-front-1", "prod-front-2"]
    error_message = "With front doors of their own no worker is one."
  }

  assert {
    condition     = [for i in range(1, 6) : output.machines["prod-server-${i}"].zone] == ["a", "b", "c", "a", "b"]
    error_message = "Servers are spread over the zones in turn."
  }

  assert {
    condition     = output.machines["prod-worker-4"].size == "big" && output.machines["prod-worker-4"].class == "large"
    error_message = "The user's size and class reach the workers."
  }

  assert {
    condition     = length(distinct([for m in output.machines : m.number])) == length(output.machines)
    error_message = "Every machine has a number of its own."
  }
}

run "a_number_stays_when_others_come" {
  command = plan

  variables {
    servers    = { count = 1 }
    workers    = { count = 1000 }
    front_door = { count = 20 }
  }

  assert {
    condition     = output.machines["prod-worker-1"].number == 31 && output.machines["prod-data-1"].number == 10 && output.machines["prod-front-20"].number == 30
    error_message = "The ranges of numbers must not move or touch."
  }
}

run "cloud_init_of_root" {
  command = plan

  assert {
    condition     = startswith(output.user_data["prod-data-1"], "#cloud-config\n") && yamldecode(output.user_data["prod-data-1"]).hostname == "prod-data-1" && !yamldecode(output.user_data["prod-data-1"]).disable_root
    error_message = "cloud-init gets the host's name and lets root in with a key."
  }
}

run "cloud_init_of_another_user" {
  command = plan

  variables {
    ssh = { user = "ops", public_keys = ["ssh-ed25519 AAAA you@laptop"] }
  }

  assert {
    condition     = yamldecode(output.user_data["prod-data-1"]).users[0].sudo == "ALL=(ALL) NOPASSWD:ALL" && yamldecode(output.user_data["prod-data-1"]).disable_root
    error_message = "Another user may sudo without a password, and root doesn't get in."
  }
}

run "nobody_could_log_in" {
  command = plan

  variables {
    ssh = { user = "root", public_keys = [] }
  }

  expect_failures = [var.ssh]
}
