output "machines" {
  description = "By name: kind, number (never changes; 1 to 5 servers, 10 data, 11 to 30 front doors, 31 and on workers), roles, size, disk_gb, class, zone, public (may have a public address), door (is a front door)."
  value       = local.machines
}

output "user_data" {
  description = "By name: what cloud-init is told at the first start. A host name and public keys, no secret."
  value = { for name in keys(local.machines) : name => "#cloud-config\n${jsonencode({
    hostname          = name
    preserve_hostname = false
    disable_root      = var.ssh.user != "root"
    ssh_pwauth        = false
    users             = [local.account]
  })}\n" }
}

output "jump" {
  description = "The machine through which those without a public address are reached."
  value       = "${var.name}-server-1"
}
