# Sourced by the scripts beside it.

# tool NAME: the path of nomad or consul as scripts/install puts it for builds and tests: beside the cache, so that checks
# need neither root nor a running platform.
tool() {
  local dir="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/flowplatform/bin"
  [[ -x $dir/$1 ]] || scripts/install --role dev --bin-dir "$dir" --quiet >&2
  printf '%s\n' "$dir/$1"
}

# ensure_tools: everything that builds and tests need; tests find nomad and consul in FLOW_BIN_DIR and FLOW_CONSUL_BIN.
ensure_tools() {
  export FLOW_BIN_DIR="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/flowplatform/bin"
  export FLOW_CONSUL_BIN="$FLOW_BIN_DIR/consul"
  scripts/install --role dev --bin-dir "$FLOW_BIN_DIR" --quiet
}
