#!/usr/bin/env bash
# Evaluate on a Slurm cluster: [GPUS=8 ...] tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 4 ] || fail "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]"
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
run_slurm "$partition" "$job" "$tools/test.py" "$config" "$checkpoint" "$@"
