name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["192.168.10.0/24"]

datacenter     = "dc-1"
datastore      = "vsan"
storage_policy = "VM Encryption Policy"
network        = { name = "servers", cidr = "192.168.10.0/24", gateway = "192.168.10.1", dns = ["192.168.10.1"], first = 50 }
zones          = ["cluster-1"]
image          = "debian-12"
