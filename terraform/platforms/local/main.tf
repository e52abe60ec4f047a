# Machines on this machine, as root: each has an init, an sshd and an address of its own, on a bridge that leads nowhere else (scripts/lab).

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = var.image == null || var.image == "plain"
      error_message = "image takes \"plain\" here, a Debian without the packages of the roles; null has them, so that hosts are ready sooner."
    }

    precondition {
      condition     = alltrue([for m in local.machines : try(tonumber(m.size) >= 256, false)])
      error_message = "A size is MB of memory here, at least 256, for example \"1536\"."
    }
  }
}

# Its end is the end of the bridge and of the directory.
resource "terraform_data" "lab" {
  input = { checkout = local.checkout, directory = var.lab.directory }

  provisioner "local-exec" {
    when        = destroy
    command     = "cd \"$CHECKOUT\" && exec go run ./scripts/lab down --dir \"$DIRECTORY\""
    environment = { CHECKOUT = self.output.checkout, DIRECTORY = self.output.directory }
  }
}

resource "terraform_data" "machine" {
  for_each = local.machines
  input = {
    checkout  = local.checkout
    directory = var.lab.directory
    name      = each.key
    address   = "10.221.${var.lab.number}.${each.value.number + 10}"
  }

  provisioner "local-exec" {
    command = "${local.program} up --dir \"$DIRECTORY\" --number ${var.lab.number} --names \"${each.key}:${each.value.number + 10}\" --memory ${each.value.size} ${var.image == "plain" ? "--bare" : ""}"
    environment = {
      CHECKOUT            = local.checkout
      DIRECTORY           = var.lab.directory
      LAB_AUTHORIZED_KEYS = join("\n", var.ssh.public_keys)
    }
  }

  provisioner "local-exec" {
    when        = destroy
    command     = "cd \"$CHECKOUT\" && exec go run ./scripts/lab remove --dir \"$DIRECTORY\" \"$NAME\""
    environment = { CHECKOUT = self.output.checkout, DIRECTORY = self.output.directory, NAME = self.output.name }
  }

  depends_on = [terraform_data.inputs, terraform_data.lab]
}

locals {
  hosts = [for name, m in local.machines : {
    name            = name
    address         = terraform_data.machine[name].output.address
    port            = 22
    private_address = "10.221.${var.lab.number}.${m.number + 10}"
    roles           = m.roles
    class           = m.class
    zone            = m.zone
    jump            = ""
  }]
}
