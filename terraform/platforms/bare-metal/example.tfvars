name             = "prod"
bundle           = "../../../dist/flowplatform-1.0.0-amd64.tar.gz"
operator_dir     = "~/clusters/prod"
ssh              = { user = "debian" }
allowed_networks = ["192.168.1.0/24"]

hosts = [
  { name = "server-1", address = "192.168.1.11", private_address = "192.168.1.11", roles = ["server"], zone = "left" },
  { name = "server-2", address = "192.168.1.12", private_address = "192.168.1.12", roles = ["server"], zone = "right" },
  { name = "data-1", address = "192.168.1.13", private_address = "192.168.1.13", roles = ["server", "data"], zone = "left" },
  { name = "worker-1", address = "192.168.1.21", private_address = "192.168.1.21", roles = ["worker", "front-door"], zone = "left" },
  { name = "worker-2", address = "192.168.1.22", private_address = "192.168.1.22", roles = ["worker", "front-door"], zone = "right", class = "large" },
]
