name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["192.168.1.0/24"]

# On your own network instead of one that only this machine reaches:
network = { bridge = "br0", cidr = "192.168.1.0/24", gateway = "192.168.1.1", dns = ["192.168.1.1"], first = 150 }

workers = { count = 2, size = "2x4", disk_gb = 20 }
