# The machine's own programs and libraries, read-only, for tasks that run software from Debian's packages.
client {
  host_volume "usr" {
    path      = "/usr"
    read_only = true
  }

  host_volume "lib" {
    path      = "/usr/lib"
    read_only = true
  }

  host_volume "lib64" {
    path      = "/usr/lib64"
    read_only = true
  }

  host_volume "bin" {
    path      = "/usr/bin"
    read_only = true
  }
}
