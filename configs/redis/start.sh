#!/bin/sh
# Starts Redis on its volume. The lock keeps an orphan and its successor from writing to the same files.
set -eu
umask 077

exec 9>"$VOLUME/lock"
flock --wait 60 9 || { echo "another Redis has held $VOLUME/lock for 60 s: is an old one still running?" >&2; exit 1; }

exec /usr/bin/redis-server /local/redis.conf
