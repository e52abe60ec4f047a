# What only this platform knows.

variable "lab" {
  type = object({
    directory = string
    number    = optional(number, 78)
  })
  description = "Where the machines' files are (a directory that is made, and taken away by destroy), and the lab's number: the machines have the addresses 10.221.<number>.11 and on."

  validation {
    condition     = startswith(var.lab.directory, "/") && var.lab.directory != "/" && floor(var.lab.number) == var.lab.number && var.lab.number >= 1 && var.lab.number <= 200
    error_message = "lab.directory must be an absolute path, lab.number a whole number from 1 to 200."
  }
}

locals {
  zones    = var.zones
  sizes    = { server = "640", worker = "1536", data = "2560", front_door = "512" } # MB of memory
  checkout = abspath("${path.module}/../../..")
  program  = "cd \"$CHECKOUT\" && exec go run ./scripts/lab"
}
