# Google Cloud: an image from Debian's family. Credentials: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS.

packer {
  required_plugins {
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "~> 1.1"
    }
  }
}

variable "google_project" {
  type        = string
  default     = "my-project"
  description = "Project in which it is built and kept."
}

variable "google_zone" {
  type        = string
  default     = "europe-west3-a"
  description = "Zone in which it is built."
}

source "googlecompute" "flowplatform" {
  project_id                      = var.google_project
  zone                            = var.google_zone
  source_image_family             = "debian-12"
  source_image_project_id         = ["debian-cloud"]
  machine_type                    = "e2-medium"
  disk_size                       = var.disk_size_gb
  disk_type                       = "pd-balanced"
  image_name                      = local.unique
  image_family                    = var.image_name
  image_description               = local.about
  enable_secure_boot              = true
  enable_vtpm                     = true
  enable_integrity_monitoring     = true
  disable_default_service_account = true
  ssh_username                    = "packer"
  ssh_timeout                     = local.wait
}

build {
  sources = ["source.googlecompute.flowplatform"]

  provisioner "file" {
    source      = var.bundle
    destination = local.uploaded
  }

  provisioner "shell" {
    scripts          = local.scripts
    environment_vars = local.environment
    execute_command  = local.as_root
    skip_clean       = true
  }
}
