#!/usr/bin/env bash
# Evaluate with one process a GPU: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# Several machines and machines without a GPU: as in dist_train.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 3 ] || fail "usage: $0 CONFIG CHECKPOINT GPUS [options of test.py]"
config=$1 checkpoint=$2 gpus=$3
shift 3
run_distributed "$gpus" "$tools/test.py" "$config" "$checkpoint" "$@"
