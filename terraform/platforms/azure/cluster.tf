# The same in every platform, byte for byte. A platform makes machines, a network and an address (main.tf: local.hosts); everything else is this.

module "cluster" {
  source = "../../modules/cluster"

  name             = var.name
  hosts            = local.hosts
  bundle           = var.bundle
  operator_dir     = var.operator_dir
  ssh              = { user = var.ssh.user, private_key_file = var.ssh.private_key_file }
  allowed_networks = var.allowed_networks
  front_door       = { port = var.front_door.port, networks = var.front_door.networks }
  on_destroy       = var.on_destroy
}
