#!/usr/bin/env bash
# Train on a Slurm cluster: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 4 ] || fail "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]"
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
run_slurm "$partition" "$job" "$tools/train.py" "$config" --work-dir="$work_dir" "$@"
