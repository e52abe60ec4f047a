# A machine that is the whole platform: jobs ask for these by a constraint (jobs/*.nomad.hcl).
client {
  meta {
    data       = "true"
    front_door = "true"
    services   = "true"
  }
}
