# Machines, a network and an address; no more.

resource "aws_vpc" "cluster" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

resource "aws_internet_gateway" "cluster" {
  vpc_id = aws_vpc.cluster.id

  tags = { Name = var.name }
}

resource "aws_route_table" "cluster" {
  vpc_id = aws_vpc.cluster.id

  tags = { Name = var.name }
}

resource "aws_route" "out" {
  route_table_id         = aws_route_table.cluster.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.cluster.id
}

resource "aws_subnet" "zone" {
  for_each = { for i, zone in local.zones : zone => cidrsubnet(var.cidr, 4, i) }

  vpc_id            = aws_vpc.cluster.id
  availability_zone = each.key
  cidr_block        = each.value

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table_association" "zone" {
  for_each = aws_subnet.zone

  subnet_id      = each.value.id
  route_table_id = aws_route_table.cluster.id
}

resource "aws_security_group" "hosts" {
  name        = "${var.name}-hosts"
  description = "Every host: SSH from allowed networks, everything among each other."
  vpc_id      = aws_vpc.cluster.id
}

resource "aws_security_group" "doors" {
  name        = "${var.name}-doors"
  description = "Hosts with the front door."
  vpc_id      = aws_vpc.cluster.id
}

resource "aws_vpc_security_group_ingress_rule" "among_hosts" {
  security_group_id            = aws_security_group.hosts.id
  referenced_security_group_id = aws_security_group.hosts.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_ingress_rule" "opening" {
  for_each = local.openings

  security_group_id = each.value.door ? aws_security_group.doors.id : aws_security_group.hosts.id
  description       = each.key
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.ipv6 ? null : each.value.network
  cidr_ipv6         = each.value.ipv6 ? each.value.network : null
}

resource "aws_vpc_security_group_egress_rule" "hosts" {
  security_group_id = aws_security_group.hosts.id
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_instance" "host" {
  for_each = local.machines

  ami                         = local.image
  instance_type               = each.value.size
  subnet_id                   = aws_subnet.zone[each.value.zone].id
  associate_public_ip_address = each.value.public
  vpc_security_group_ids      = concat([aws_security_group.hosts.id], each.value.door ? [aws_security_group.doors.id] : [])
  user_data                   = module.machines.user_data[each.key]

  root_block_device {
    volume_type = "gp3"
    volume_size = each.value.disk_gb
    encrypted   = true
  }

  metadata_options {
    http_tokens = "required"
  }

  tags = { Name = each.key }

  # A newer image is for new machines, and so is another order of zones: neither must ever replace one that runs.
  lifecycle {
    ignore_changes = [ami, user_data, subnet_id, associate_public_ip_address]
  }

  depends_on = [aws_route.out, aws_route_table_association.zone]
}

locals {
  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? aws_instance.host[name].public_ip : aws_instance.host[name].private_ip
    port            = 22
    private_address = aws_instance.host[name].private_ip
    roles           = m.roles
    class           = m.class
    zone            = aws_instance.host[name].availability_zone
    jump            = m.public ? "" : aws_instance.host[module.machines.jump].public_ip
  }]
}
