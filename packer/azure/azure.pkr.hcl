# Azure: a managed image from Debian's own. Credentials: az login, or ARM_CLIENT_ID, ARM_CLIENT_SECRET and ARM_TENANT_ID in variables of Packer's own.

packer {
  required_plugins {
    azure = {
      source  = "github.com/hashicorp/azure"
      version = "~> 2.0"
    }
  }
}

variable "azure_subscription" {
  type        = string
  default     = "00000000-0000-0000-0000-000000000000"
  description = "Subscription in which it is built and kept."
}

variable "azure_resource_group" {
  type        = string
  default     = "flowplatform-images"
  description = "Resource group of the image; it must be there."
}

variable "azure_location" {
  type        = string
  default     = "westeurope"
  description = "Location in which it is built."
}

source "azure-arm" "flowplatform" {
  use_azure_cli_auth                = true
  subscription_id                   = var.azure_subscription
  location                          = var.azure_location
  vm_size                           = "Standard_B2s"
  os_type                           = "Linux"
  image_publisher                   = "Debian"
  image_offer                       = "debian-12"
  image_sku                         = "12-gen2"
  os_disk_size_gb                   = max(var.disk_size_gb, 30)
  managed_image_name                = local.unique
  managed_image_resource_group_name = var.azure_resource_group
  ssh_username                      = "packer"
  ssh_timeout                       = local.wait

  azure_tags = {
    version = local.version
  }
}

build {
  sources = ["source.azure-arm.flowplatform"]

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
