output "front_door" {
  description = "Where users come in: the front door of each host that has one."
  value       = [for h in var.hosts : "https://${h.address}:${var.front_door.port}" if contains(h.roles, "front-door")]

  depends_on = [terraform_data.converged]
}

output "next" {
  description = "What to do now."
  value       = <<-TEXT
    Use the platform:    ${local.dir}/bundle/current/bin/flowctl, logged in by: ${local.program} exec --dir ${local.dir} -- flowctl whoami
    First login:         ${local.dir}/keys/login.json
    Look after it:       ${local.program} help (docs/operations.md)
    Back up:             ${local.dir} holds the keys of the cluster, and nothing else does.
  TEXT
}
