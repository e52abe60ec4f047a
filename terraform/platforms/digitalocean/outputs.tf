# The same in every platform, byte for byte.

output "hosts" {
  description = "Every host: name, address (SSH), private_address, roles, class, zone."
  value       = local.hosts
}

output "front_door" {
  description = "Where users come in."
  value       = module.cluster.front_door
}

output "next" {
  description = "What to do now."
  value       = module.cluster.next
}
