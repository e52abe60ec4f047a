name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["203.0.113.0/24"]

region = "fra1"

workers = { count = 3, size = "s-2vcpu-4gb" }
