#!/bin/sh
# Starts RabbitMQ on its volume, with a port mapper, a distribution port and a cookie of its own.
# The lock keeps an orphan and its successor from writing to the same files; the server holds it while it lives.
set -eu
umask 077

exec 9>"$VOLUME/lock"
flock --wait 60 9 || { echo "another RabbitMQ has held $VOLUME/lock for 60 s: is an old one still running?" >&2; exit 1; }

export HOME="$VOLUME"
if ! cmp -s /secrets/cookie "$HOME/.erlang.cookie"; then
  cat /secrets/cookie >"$HOME/.cookie.new"
  chmod 0400 "$HOME/.cookie.new"
  mv -f "$HOME/.cookie.new" "$HOME/.erlang.cookie"
fi

: >/local/rabbitmq-env.conf
: >/local/enabled_plugins.new && echo '[rabbitmq_prometheus].' >/local/enabled_plugins.new && mv /local/enabled_plugins.new /local/enabled_plugins

export RABBITMQ_NODENAME="rabbit@localhost"
export RABBITMQ_CONF_ENV_FILE=/local/rabbitmq-env.conf
export RABBITMQ_CONFIG_FILE=/local/rabbitmq.conf
export RABBITMQ_ADVANCED_CONFIG_FILE=/local/advanced.config
export RABBITMQ_ENABLED_PLUGINS_FILE=/local/enabled_plugins
export RABBITMQ_MNESIA_BASE="$VOLUME/mnesia"
export RABBITMQ_LOG_BASE=/local/log
export RABBITMQ_PID_FILE=/local/rabbitmq.pid
export RABBITMQ_DIST_PORT="$NOMAD_PORT_dist"
export ERL_EPMD_PORT="$NOMAD_PORT_epmd"
export ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S $SCHEDULERS:$SCHEDULERS -kernel inet_dist_use_interface {127,0,0,1}"

exec /usr/lib/rabbitmq/bin/rabbitmq-server
