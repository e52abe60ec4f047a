# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = var.ssh.user != "root"
      error_message = "Google's Debian lets root in with no key: set ssh.user to another name, for example ops. The account is made, and may sudo."
    }
  }
}

resource "google_compute_network" "cluster" {
  name                    = var.name
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "cluster" {
  name          = var.name
  network       = google_compute_network.cluster.id
  ip_cidr_range = var.cidr
}

# Disks are encrypted by Google in any case.
resource "google_compute_firewall" "among_hosts" {
  name        = "${var.name}-among-hosts"
  network     = google_compute_network.cluster.id
  description = "Everything among hosts."
  source_tags = ["${var.name}-host"]
  target_tags = ["${var.name}-host"]

  allow {
    protocol = "all"
  }
}

resource "google_compute_firewall" "opening" {
  for_each = local.openings

  name          = "${var.name}-${substr(sha256(each.key), 0, 12)}"
  network       = google_compute_network.cluster.id
  description   = each.key
  source_ranges = [each.value.network]
  target_tags   = [each.value.door ? "${var.name}-door" : "${var.name}-host"]

  allow {
    protocol = "tcp"
    ports    = [tostring(each.value.port)]
  }
}

resource "google_compute_instance" "host" {
  for_each = local.machines

  name                      = each.key
  machine_type              = each.value.size
  zone                      = each.value.zone
  tags                      = concat(["${var.name}-host"], each.value.door ? ["${var.name}-door"] : [])
  labels                    = { cluster = var.name }
  allow_stopping_for_update = true

  boot_disk {
    initialize_params {
      image = local.image
      size  = each.value.disk_gb
      type  = "pd-balanced"
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.cluster.id

    dynamic "access_config" {
      for_each = each.value.public ? [1] : []
      content {}
    }
  }

  metadata = {
    enable-oslogin         = "FALSE"
    block-project-ssh-keys = "TRUE"
    ssh-keys               = join("\n", [for key in var.ssh.public_keys : "${var.ssh.user}:${key}"])
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  # A newer image is for new machines, and so is another order of zones: neither must ever replace one that runs.
  lifecycle {
    ignore_changes = [boot_disk[0].initialize_params[0].image, zone]
  }

  depends_on = [terraform_data.inputs]
}

locals {
  public = { for name, m in local.machines : name => m.public ? google_compute_instance.host[name].network_interface[0].access_config[0].nat_ip : "" }

  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? local.public[name] : google_compute_instance.host[name].network_interface[0].network_ip
    port            = 22
    private_address = google_compute_instance.host[name].network_interface[0].network_ip
    roles           = m.roles
    class           = m.class
    zone            = google_compute_instance.host[name].zone
    jump            = m.public ? "" : local.public[module.machines.jump]
  }]
}
