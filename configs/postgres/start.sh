#!/bin/sh
# Starts PostgreSQL on its volume; makes the cluster, the roles and the database when they are not there yet.
#
# The lock on the volume matters: Nomad gives each task process ids and shared memory of its own, and these are what
# PostgreSQL itself looks at before it believes that a data directory is free. Without it an orphan of a killed executor
# and its successor would write to the same files. The server inherits the descriptor, and holds the lock while it lives.
set -eu
umask 077

exec 9>"$VOLUME/lock"
flock --wait 60 9 || { echo "another PostgreSQL has held $VOLUME/lock for 60 s: is an old one still running?" >&2; exit 1; }

data="$VOLUME/$(basename "$(dirname "$POSTGRES_BIN")")" # by major version: /volume/15
applied="$VOLUME/roles.applied"

# sql DIRECTORY < statements: in single-user mode, where nobody else can be connected. The first error ends it, and a
# statement that failed is not written to the log: it may hold a password.
sql() {
  "$POSTGRES_BIN/postgres" --single -j -D "$1" -c config_file=/local/postgresql.conf \
    -c exit_on_error=on -c log_min_error_statement=panic -c log_checkpoints=off postgres >/dev/null
}

if [ ! -f "$data/PG_VERSION" ]; then
  echo "making a database cluster in $data" >&2
  rm -rf "$data.new" "$applied"
  "$POSTGRES_BIN/initdb" --pgdata "$data.new" --username postgres --encoding UTF8 --locale C.UTF-8 \
    --data-checksums --auth-local peer --auth-host scram-sha-256 >&2
  sql "$data.new" </secrets/roles.sql
  sql "$data.new" </local/database.sql
  mv "$data.new" "$data"
fi

# Passwords and limits follow what Nomad keeps; a restart after a crash doesn't wait for what is so already.
if ! sha256sum --check --status "$applied" 2>/dev/null; then
  sql "$data" </secrets/roles.sql
  sha256sum /secrets/roles.sql >"$applied"
fi

exec "$POSTGRES_BIN/postgres" -D "$data" -c config_file=/local/postgresql.conf
