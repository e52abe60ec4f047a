name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["192.168.10.0/24"]

network = { bridge = "vmbr0", cidr = "192.168.10.0/24", gateway = "192.168.10.1", dns = ["192.168.10.1"], first = 50 }
zones   = ["pve1", "pve2", "pve3"]
workers = { count = 3, size = "2x4", disk_gb = 30 }
