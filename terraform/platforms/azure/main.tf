# Machines, a network and an address; no more.

# A setting that says nothing here is refused instead of ignored.
resource "terraform_data" "inputs" {
  lifecycle {
    precondition {
      condition     = var.ssh.user != "root"
      error_message = "Azure makes no account named root: set ssh.user to another name, for example ops. The account is made, and may sudo."
    }
  }
}

resource "azurerm_resource_group" "cluster" {
  name     = var.name
  location = var.location
}

resource "azurerm_virtual_network" "cluster" {
  name                = var.name
  resource_group_name = azurerm_resource_group.cluster.name
  location            = azurerm_resource_group.cluster.location
  address_space       = [var.cidr]
}

resource "azurerm_subnet" "cluster" {
  name                 = "hosts"
  resource_group_name  = azurerm_resource_group.cluster.name
  virtual_network_name = azurerm_virtual_network.cluster.name
  address_prefixes     = [var.cidr]
}

# Azure's own rules let in what comes from the same network, and nothing else. Each machine is in the group of the front doors or in the other.
resource "azurerm_network_security_group" "hosts" {
  for_each = { hosts = false, doors = true }

  name                = "${var.name}-${each.key}"
  resource_group_name = azurerm_resource_group.cluster.name
  location            = azurerm_resource_group.cluster.location
}

resource "azurerm_network_security_rule" "opening" {
  for_each = merge(
    { for i, key in sort(keys(local.openings)) : "doors ${key}" => merge(local.openings[key], { group = "doors", priority = 100 + i }) },
    { for i, key in sort(keys(local.openings)) : "hosts ${key}" => merge(local.openings[key], { group = "hosts", priority = 100 + i }) if !local.openings[key].door },
  )

  name                        = "opening-${each.value.priority}"
  resource_group_name         = azurerm_resource_group.cluster.name
  network_security_group_name = azurerm_network_security_group.hosts[each.value.group].name
  description                 = each.key
  priority                    = each.value.priority
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = each.value.network
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = tostring(each.value.port)
}

resource "azurerm_public_ip" "host" {
  for_each = { for name, m in local.machines : name => m if m.public }

  name                = each.key
  resource_group_name = azurerm_resource_group.cluster.name
  location            = azurerm_resource_group.cluster.location
  allocation_method   = "Static"
  zones               = [each.value.zone]

  lifecycle {
    ignore_changes = [zones]
  }
}

resource "azurerm_network_interface" "host" {
  for_each = local.machines

  name                = each.key
  resource_group_name = azurerm_resource_group.cluster.name
  location            = azurerm_resource_group.cluster.location

  ip_configuration {
    name                          = "cluster"
    subnet_id                     = azurerm_subnet.cluster.id
    private_ip_address_allocation = "Dynamic"
    public_ip_address_id          = each.value.public ? azurerm_public_ip.host[each.key].id : null
  }
}

resource "azurerm_network_interface_security_group_association" "host" {
  for_each = local.machines

  network_interface_id      = azurerm_network_interface.host[each.key].id
  network_security_group_id = azurerm_network_security_group.hosts[each.value.door ? "doors" : "hosts"].id
}

resource "azurerm_linux_virtual_machine" "host" {
  for_each = local.machines

  name                            = each.key
  resource_group_name             = azurerm_resource_group.cluster.name
  location                        = azurerm_resource_group.cluster.location
  zone                            = each.value.zone
  size                            = each.value.size
  network_interface_ids           = [azurerm_network_interface.host[each.key].id]
  admin_username                  = var.ssh.user
  disable_password_authentication = true
  encryption_at_host_enabled      = var.encryption_at_host
  source_image_id                 = var.image

  dynamic "admin_ssh_key" {
    for_each = toset(var.ssh.public_keys)

    content {
      username   = var.ssh.user
      public_key = admin_ssh_key.value
    }
  }

  dynamic "source_image_reference" {
    for_each = var.image == null ? [1] : []

    content {
      publisher = "Debian"
      offer     = "debian-12"
      sku       = "12-gen2"
      version   = "latest"
    }
  }

  os_disk {
    caching              = "ReadWrite"
    storage_account_type = "StandardSSD_LRS"
    disk_size_gb         = max(each.value.disk_gb, 30) # Debian's image has 30
  }

  # A newer image is for new machines, and so are another order of zones and other keys: none must ever replace one that runs.
  lifecycle {
    ignore_changes = [source_image_id, source_image_reference, admin_ssh_key, zone]
  }

  depends_on = [terraform_data.inputs, azurerm_network_interface_security_group_association.host]
}

locals {
  hosts = [for name, m in local.machines : {
    name            = name
    address         = m.public ? azurerm_public_ip.host[name].ip_address : azurerm_network_interface.host[name].private_ip_address
    port            = 22
    private_address = azurerm_network_interface.host[name].private_ip_address
    roles           = m.roles
    class           = m.class
    zone            = azurerm_linux_virtual_machine.host[name].zone
    jump            = m.public ? "" : azurerm_public_ip.host[module.machines.jump].ip_address
  }]
}
