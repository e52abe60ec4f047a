name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { user = "ops", public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["203.0.113.0/24"]

project = "my-project"
region  = "europe-west3"

workers = { count = 3, size = "e2-medium", disk_gb = 30 }
