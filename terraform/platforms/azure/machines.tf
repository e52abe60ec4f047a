# The same in every platform that makes machines, byte for byte: what they are called, what each is for, and who may come in.

module "machines" {
  source = "../../modules/machines"

  name       = var.name
  servers    = var.servers
  workers    = var.workers
  data       = var.data
  front_door = { count = var.front_door.count, size = var.front_door.size }
  zones      = local.zones
  sizes      = local.sizes
  ssh        = { user = var.ssh.user, public_keys = var.ssh.public_keys }
}

locals {
  machines = module.machines.machines

  # Nothing else is let in from outside: SSH to every machine, the front door to the machines that are one.
  openings = merge(
    { for n in var.allowed_networks : "ssh ${n}" => { door = false, port = 22, network = n, ipv6 = strcontains(n, ":") } },
    { for n in var.front_door.networks : "front-door ${n}" => { door = true, port = var.front_door.port, network = n, ipv6 = strcontains(n, ":") } },
  )
}
