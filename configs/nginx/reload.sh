#!/bin/sh
# Run when the list of gateways has changed. It says when what was rendered could not be loaded.
set -u
conf=/local/nginx.conf
if /usr/sbin/nginx -q -e stderr -t -p /local -c "$conf" 2>/local/reload.error; then
  rm -f /local/reload.error
  exec kill -HUP "$(cat /local/nginx.pid)"
fi
cat /local/reload.error >&2
exit 1
