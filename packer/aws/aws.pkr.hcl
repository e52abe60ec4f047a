# Amazon: an AMI from Debian's own, encrypted. Credentials: AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "amazon_region" {
  type        = string
  default     = "eu-central-1"
  description = "Region in which it is built and kept."
}

variable "amazon_instance_type" {
  type        = string
  default     = "t3.medium"
  description = "Machine that builds it."
}

source "amazon-ebs" "flowplatform" {
  region          = var.amazon_region
  instance_type   = var.amazon_instance_type
  ami_name        = local.unique
  ami_description = local.about
  encrypt_boot    = true
  imds_support    = "v2.0"

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true

    filters = {
      name                = "debian-12-amd64-*"
      virtualization-type = "hvm"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = var.disk_size_gb
    delete_on_termination = true
  }

  temporary_key_pair_type   = "ed25519"
  ssh_username              = "admin"
  ssh_timeout               = local.wait
  ssh_clear_authorized_keys = true

  tags = {
    Name    = var.image_name
    version = local.version
  }
}

build {
  sources = ["source.amazon-ebs.flowplatform"]

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
