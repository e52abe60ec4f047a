locals {
  # A machine's number never changes when others come or go: each kind has a range of its own, so that addresses made of it stay.
  kinds = [
    { kind = "server", first = 1, count = var.servers.count, roles = tolist(["server"]), size = coalesce(var.servers.size, var.sizes.server), disk_gb = var.servers.disk_gb, class = "", public = true },
    { kind = "data", first = 10, count = 1, roles = tolist(["data"]), size = coalesce(var.data.size, var.sizes.data), disk_gb = var.data.disk_gb, class = "", public = false },
    { kind = "front", first = 11, count = var.front_door.count == null ? 0 : var.front_door.count, roles = tolist(["front-door"]), size = coalesce(var.front_door.size, var.sizes.front_door), disk_gb = 20, class = "", public = true },
    { kind = "worker", first = 31, count = var.workers.count, roles = var.front_door.count == null ? tolist(["worker", "front-door"]) : tolist(["worker"]), size = coalesce(var.workers.size, var.sizes.worker), disk_gb = var.workers.disk_gb, class = var.workers.class, public = true },
  ]

  machines = merge([for k in local.kinds : { for i in range(k.count) : "${var.name}-${k.kind}-${i + 1}" => {
    kind    = k.kind
    number  = k.first + i
    roles   = k.roles
    size    = k.size
    disk_gb = k.disk_gb
    class   = k.class
    zone    = length(var.zones) == 0 ? "" : var.zones[i % length(var.zones)]
    public  = k.public
    door    = contains(k.roles, "front-door")
  } }]...)

  account = merge({ name = var.ssh.user, ssh_authorized_keys = var.ssh.public_keys }, var.ssh.user == "root" ? {} : {
    sudo        = "ALL=(ALL) NOPASSWD:ALL"
    shell       = "/bin/bash"
    lock_passwd = true
  })
}
