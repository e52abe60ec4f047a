name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["203.0.113.0/24"]

external_network = "public"
volume_type      = "luks" # a type that your cloud encrypts, if it has one
zones            = ["nova"]
workers          = { count = 2, size = "m1.medium" }
