# terraform test -var-file=example.tfvars; nothing is made: the provider and the cluster are played.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"] }
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
    condition     = output.hosts[0].address == aws_instance.host["prod-data-1"].private_ip && output.hosts[0].jump == aws_instance.host["prod-server-1"].public_ip && output.hosts[0].roles == tolist(["data"])
    error_message = "The data host is reached at its private address, through the first server."
  }

  assert {
    condition     = output.hosts[5].address == aws_instance.host["prod-worker-2"].public_ip && output.hosts[5].private_address == aws_instance.host["prod-worker-2"].private_ip && output.hosts[5].class == "large" && output.hosts[5].jump == ""
    error_message = "The other hosts are reached at their public addresses."
  }

  assert {
    condition     = [for name, i in aws_instance.host : name if !i.associate_public_ip_address] == ["prod-data-1"]
    error_message = "The data host alone has no public address."
  }

  assert {
    condition     = alltrue([for i in aws_instance.host : i.root_block_device[0].encrypted && i.metadata_options[0].http_tokens == "required"]) && aws_instance.host["prod-data-1"].root_block_device[0].volume_size == 100
    error_message = "Every disk is encrypted and has the size that was asked for; instance metadata takes tokens only."
  }

  assert {
    condition     = [for zone, s in aws_subnet.zone : "${zone} ${s.cidr_block}"] == ["eu-central-1a 10.78.0.0/20", "eu-central-1b 10.78.16.0/20", "eu-central-1c 10.78.32.0/20"] && [for n in [1, 2, 3] : aws_instance.host["prod-server-${n}"].subnet_id] == [for s in aws_subnet.zone : s.id]
    error_message = "The servers are spread over three zones, each with its subnet."
  }
}

run "the_firewall" {
  variables {
    allowed_networks = ["203.0.113.0/24", "2001:db8::/48"]
    front_door       = { port = 8443, networks = ["198.51.100.0/24"], count = 2 }
  }

  assert {
    condition     = join(", ", [for key, r in aws_vpc_security_group_ingress_rule.opening : "${r.from_port}-${r.to_port} ${strcontains(key, ":") ? r.cidr_ipv6 : r.cidr_ipv4}"]) == "8443-8443 198.51.100.0/24, 22-22 2001:db8::/48, 22-22 203.0.113.0/24"
    error_message = "SSH is open from allowed networks, the front door from its networks, and nothing else."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.opening["front-door 198.51.100.0/24"].security_group_id == aws_security_group.doors.id && aws_vpc_security_group_ingress_rule.opening["ssh 203.0.113.0/24"].security_group_id == aws_security_group.hosts.id
    error_message = "The front door's port belongs to the group of the front doors alone."
  }

  assert {
    condition     = [for name, i in aws_instance.host : name if contains(i.vpc_security_group_ids, aws_security_group.doors.id)] == ["prod-front-1", "prod-front-2"]
    error_message = "Only the front doors are in the group of the front doors."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.among_hosts.referenced_security_group_id == aws_security_group.hosts.id
    error_message = "Hosts reach each other."
  }
}

run "a_network_that_is_too_small" {
  command = plan

  variables {
    cidr = "10.78.0.0/24"
  }

  expect_failures = [var.cidr]
}

run "a_newer_image_is_for_new_machines" {
  variables {
    image   = "ami-new"
    workers = { count = 4 }
  }

  assert {
    condition     = aws_instance.host["prod-server-1"].ami != "ami-new"
    error_message = "A machine that runs must not be replaced by a newer image."
  }

  assert {
    condition     = aws_instance.host["prod-worker-4"].ami == "ami-new"
    error_message = "A new machine is made from the new image."
  }
}
