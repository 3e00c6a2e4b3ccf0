#!/usr/bin/env bash
# Train with one process a GPU: tools/dist_train.sh CONFIG GPUS [options of train.py]
# Several machines: run it on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
# With no GPU it starts that many processes on the CPU.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 2 ] || fail "usage: $0 CONFIG GPUS [options of train.py]"
config=$1 gpus=$2
shift 2
run_distributed "$gpus" "$tools/train.py" "$config" "$@"
