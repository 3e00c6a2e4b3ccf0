#!/usr/bin/env bash
# Train on a Slurm cluster: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]
# Slurm is asked for SIGUSR1 120 s before the time limit (in a batch job that is yours to ask for:
# `#SBATCH --signal=USR1@120`). A training that was asked to leave has saved its state; it is
# requeued in a batch job, else started again, and goes on from there.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
[ $# -ge 4 ] || fail "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]"
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
preempted=75 # PREEMPTED in mmwave/engine/exit_codes.py

# train: one training; it resumes where $resume is set and there is something to go on from.
train() {
    local options=("$@")
    if [ -n "$resume" ] && compgen -G "$work_dir/*.pth" >/dev/null; then
        without_load_from "$@"
        options+=(--resume)
    fi
    # A process that leaves first must not have the others killed, whose code would count: --wait
    # gives them some seconds.
    SRUN_ARGS="--signal=USR1@120 --kill-on-bad-exit=0 --wait=10 ${SRUN_ARGS:-}" \
        run_slurm "$partition" "$job" "$tools/train.py" "$config" --work-dir="$work_dir" \
        ${options[@]+"${options[@]}"}
}

# without_load_from OPTIONS...: set $options without --load-from, which is for the first start.
without_load_from() {
    options=()
    while [ $# -gt 0 ]; do
        case $1 in
            --load-from=*) ;;
            --load-from) shift ;;
            *) options+=("$1") ;;
        esac
        shift
    done
}

resume=
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || resume=yes
while :; do
    code=0
    (train "$@") || code=$?
    [ "$code" = "$preempted" ] || exit "$code"
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        # In a batch job, whose end this command is.
        echo "training was asked to leave: requeueing job $SLURM_JOB_ID" >&2
        scontrol requeue "$SLURM_JOB_ID" || true # not a batch job
        exit "$code"
    fi
    echo "training was asked to leave: starting it again with --resume in 10 s, Ctrl-C ends that" >&2
    sleep "${RESTART_AFTER:-10}"
    resume=yes
done
