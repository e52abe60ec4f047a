# Everything that is done is done by flowcluster, the program in the bundle: by hand it does the same. Terraform knows the order, and what has to be
# done again when something has changed. No secret comes here: keys and tokens are in the operator's directory, so none is in a state or a plan.

locals {
  dir     = abspath(pathexpand(var.operator_dir))
  sum     = filesha256(var.bundle)
  program = "${local.dir}/bundle/current/bin/flowcluster"

  hosts   = { for h in var.hosts : h.name => h }
  servers = sort([for h in var.hosts : h.private_address if contains(h.roles, "server")])
  peers   = sort([for h in var.hosts : h.private_address])

  ssh = {
    user             = var.ssh.user
    private_key_file = var.ssh.private_key_file == "" ? "" : abspath(pathexpand(var.ssh.private_key_file))
  }

  # Which steps were begun and not ended: step.sh says why Terraform can't know.
  steps   = concat(["operator", "converged"], [for h in var.hosts : "host-${h.name}"])
  attempt = { for s in local.steps : s => try(tonumber(trimspace(file("${local.dir}/steps/${s}"))), 0) }
  step    = "sh '${abspath(path.module)}/step.sh'"

  # cluster.json: spec.Cluster in scripts/internal/spec.
  cluster = {
    name             = var.name
    hosts            = var.hosts
    ssh              = local.ssh
    allowed_networks = var.allowed_networks
    front_door       = var.front_door
    bundle           = local.sum
    on_destroy       = var.on_destroy
  }
}

# The operator's directory, with the bundle unpacked and the keys made. Compressed, because an environment variable holds 128 KB.
resource "terraform_data" "operator" {
  triggers_replace = [local.dir, local.cluster, local.attempt["operator"]]

  provisioner "local-exec" {
    command = "${local.step} sh '${abspath(path.module)}/operator.sh'"
    environment = {
      STEP         = "operator"
      ATTEMPT      = local.attempt["operator"]
      OPERATOR_DIR = local.dir
      BUNDLE       = abspath(pathexpand(var.bundle))
      BUNDLE_SUM   = local.sum
      CLUSTER      = base64gzip(jsonencode(local.cluster))
    }
  }
}

# A host's membership, which ends when the host leaves the list. It has no trigger and no other provisioner, so that nothing but that ends it: a
# resource that is replaced, or tainted by an interrupted apply, would be destroyed first, and data with it.
resource "terraform_data" "member" {
  for_each = local.hosts
  input    = { program = local.program, dir = local.dir, name = each.key }

  provisioner "local-exec" {
    when        = destroy
    command     = "\"$PROGRAM\" host remove --dir \"$OPERATOR_DIR\" \"$HOST\""
    environment = { PROGRAM = self.output.program, OPERATOR_DIR = self.output.dir, HOST = self.output.name }
  }

  depends_on = [terraform_data.operator]
}

# The host as it should be: what it needs installed, its configuration, its agents. Killed at any point, the next apply finishes it.
resource "terraform_data" "host" {
  for_each         = local.hosts
  triggers_replace = [local.dir, local.sum, each.value, local.servers, local.peers, var.name, local.ssh, var.allowed_networks, var.front_door, local.attempt["host-${each.key}"]]

  provisioner "local-exec" {
    command = "${local.step} \"$PROGRAM\" host apply --dir \"$OPERATOR_DIR\" \"$HOST\""
    environment = {
      STEP         = "host-${each.key}"
      ATTEMPT      = local.attempt["host-${each.key}"]
      PROGRAM      = local.program
      OPERATOR_DIR = local.dir
      HOST         = each.key
    }
  }

  depends_on = [terraform_data.member]
}

# What is taken down before the hosts are. It stands apart from what converges it, because that is replaced with every change.
resource "terraform_data" "platform" {
  input = { program = local.program, dir = local.dir }

  provisioner "local-exec" {
    when        = destroy
    command     = "\"$PROGRAM\" dismantle --dir \"$OPERATOR_DIR\""
    environment = { PROGRAM = self.output.program, OPERATOR_DIR = self.output.dir }
  }

  depends_on = [terraform_data.member]
}

# The agents become a cluster, and the platform runs on it.
resource "terraform_data" "converged" {
  triggers_replace = [local.dir, local.cluster, local.attempt["converged"]]

  provisioner "local-exec" {
    command = "${local.step} \"$PROGRAM\" converge --dir \"$OPERATOR_DIR\""
    environment = {
      STEP         = "converged"
      ATTEMPT      = local.attempt["converged"]
      PROGRAM      = local.program
      OPERATOR_DIR = local.dir
    }
  }

  depends_on = [terraform_data.host, terraform_data.platform]
}
