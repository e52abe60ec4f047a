# The machines are there: the list that you have written is all.

locals {
  hosts = var.hosts
}

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = var.servers == null && var.workers == null && var.data == null && var.image == null && var.front_door.count == null && length(var.zones) == 0
      error_message = "On bare metal the list of hosts says how many there are and of which kind: leave servers, workers, data, image, zones and front_door.count out."
    }
  }
}
