#!/bin/sh
# operator: the bundle unpacked in the operator's directory, and cluster.json in it. Run by Terraform; again, it changes nothing that is right.
set -eu
umask 077

fail() { printf 'operator: %s\n' "$*" >&2; exit 1; }

mkdir -p "$OPERATOR_DIR/bundle"
chmod 0700 "$OPERATOR_DIR"

# It appears whole or not at all: an interrupted one leaves a directory that the next takes away.
target="$OPERATOR_DIR/bundle/$BUNDLE_SUM"
if [ ! -d "$target" ]; then
  rm -rf "$OPERATOR_DIR"/bundle/*.new
  mkdir "$target.new"
  printf 'operator: unpacking %s\n' "$BUNDLE"
  tar -xzf "$BUNDLE" -C "$target.new" || fail "$BUNDLE is no bundle, or damaged. Make one with: make bundle VERSION=1.0.0"
  [ -f "$target.new/SHA256SUMS" ] || fail "$BUNDLE has no SHA256SUMS: it was not made by make bundle"
  (cd "$target.new" && sha256sum --check --quiet --strict SHA256SUMS) || fail "$BUNDLE: a file in it does not have the sum that its SHA256SUMS names"
  mv "$target.new" "$target"
fi
ln -s "$BUNDLE_SUM" "$OPERATOR_DIR/bundle/current.$$"
mv -T "$OPERATOR_DIR/bundle/current.$$" "$OPERATOR_DIR/bundle/current"

printf '%s' "$CLUSTER" | base64 -d | gunzip | "$target/bin/flowcluster" init --dir "$OPERATOR_DIR" --bundle "$BUNDLE"
