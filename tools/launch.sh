# Shared by dist_train.sh, dist_test.sh, slurm_train.sh and slurm_test.sh; sourced, not run.

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The interpreter: $PYTHON, else that of the active environment, else the one `make env` built, or
# where this is a part of an installed package, the one that it was installed for.
case $tools in
    */lib/python*/*-packages/mmwave/.mim/tools) own=${tools%/lib/python*}/bin/python ;;
    *) own=$tools/../.venv/bin/python ;;
esac
if [ -z "${PYTHON:-}" ]; then
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$own" ]; then
        PYTHON=$own
    else
        PYTHON=python
    fi
fi

fail() {
    echo "error: $*" >&2
    exit 2
}

# run_distributed GPUS SCRIPT ARGS...: check what can be checked in one process, then start GPUS of them.
# NNODES, NODE_RANK, MASTER_ADDR and PORT are those of mmdetection's launchers; NODE_TIMEOUT is how
# many seconds the machines wait for each other.
run_distributed() {
    local gpus=$1 script=$2 rendezvous
    shift 2
    case $gpus in
        '' | *[!0-9]*) fail "GPUS must be a number of processes, not '$gpus'" ;;
    esac
    "$PYTHON" "$script" "$@" --check-only "$gpus" || exit $?
    if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
        rendezvous=(--standalone)
    else
        rendezvous=(--node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}"
            --master-port "${PORT:-29500}" --rdzv-conf "timeout=${NODE_TIMEOUT:-300}")
    fi
    # What torchrun would set itself, with a banner of four lines.
    [ "$gpus" = 1 ] || export OMP_NUM_THREADS="${OMP_NUM_THREADS-1}"
    # torchrun with a summary of our own, by its module name: it belongs to the same interpreter.
    exec "$PYTHON" -m mmwave.apis.launch --nnodes "${NNODES:-1}" --nproc-per-node "$gpus" \
        "${rendezvous[@]}" "$script" "$@" --launcher pytorch
}

# run_slurm PARTITION JOB_NAME SCRIPT ARGS...: GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS as in mmdetection.
run_slurm() {
    local partition=$1 job=$2 script=$3 gpus=${GPUS:-8} per_node
    shift 3
    per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    command -v srun >/dev/null || fail "srun is not on the PATH: this is no Slurm machine"
    # SRUN_ARGS holds several words on purpose.
    # shellcheck disable=SC2086
    exec srun -p "$partition" --job-name="$job" --gres=gpu:"$per_node" --ntasks="$gpus" \
        --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} "$PYTHON" -u "$script" "$@" --launcher slurm
}
