name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { user = "ops", public_keys = ["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABExampleExampleExampleExampleExample you@laptop"] } # RSA or Ed25519
allowed_networks = ["203.0.113.0/24"]

location = "germanywestcentral"

workers = { count = 3, size = "Standard_B2s_v2", disk_gb = 30 }
