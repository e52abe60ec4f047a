# Servers: one instead of three, because this machine's failure is the failure of all of them.
name             = "trial"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/trial"
ssh              = { public_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExa you@laptop"] }
allowed_networks = ["10.221.78.1/32"] # this machine, as the lab's hosts see it

lab     = { directory = "/var/lib/flowplatform-lab" }
servers = { count = 1 }
workers = { count = 2 }
