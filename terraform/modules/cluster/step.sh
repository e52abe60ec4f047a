#!/bin/sh
# step: does a step in such a way that the next plan sees whether it was done to its end. Terraform may write a resource into its state while the
# provisioner still runs; killed then, it takes the step for done. So the plan looks at a number in the operator's directory, which differs
# from the one in the state from a step's beginning to its end: STEP names the file, ATTEMPT is the number in the state.
set -eu
umask 077

mkdir -p "$OPERATOR_DIR/steps"
file="$OPERATOR_DIR/steps/$STEP"
before="$(cat "$file" 2>/dev/null || echo 0)"
[ "$before" -gt "$ATTEMPT" ] || before=$ATTEMPT

put() { printf '%s\n' "$1" >"$file.$$" && mv "$file.$$" "$file"; }

put "$((before + 1))"
"$@"
put "$ATTEMPT"
