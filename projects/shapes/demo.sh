#!/usr/bin/env bash
# The whole way in one command: draw a data set, train a Wave-MLP RetinaNet on two processes, evaluate
# it on held-out scenes, draw what it found.
#
#   bash projects/shapes/demo.sh        (or: make demo)
#
# PYTHON names the interpreter (default: the active environment's, else .venv), WORK_DIR the folder of
# log, weights and picture (default: work_dirs/shapes_demo).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$root/tools/launch.sh" # settles PYTHON, defines fail
work=$(realpath -m "${WORK_DIR:-$root/work_dirs/shapes_demo}")
cd "$root"
export PYTHON
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# The same two processes on the CPU everywhere: a machine with one GPU could not start two on it.
export CUDA_VISIBLE_DEVICES=
# bfloat16 saves a good third of the time where the CPU computes in it; elsewhere it is emulated.
amp=()
if grep -qwE 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo 2>/dev/null; then
    amp=(--amp)
fi

config=projects/shapes/configs/wavemlp-t-dw_retinanet_shapes.py
log=$work/demo.log
picture=$work/shapes.jpg
least=0.7

say() { printf '\n== %3d s: %s\n' "$SECONDS" "$*"; }

mkdir -p "$work"
# What an earlier run left must not pass for a result of this one.
rm -f "$work/last_checkpoint" "$log" "$picture"

say 'drawing the data set'
"$PYTHON" projects/shapes/generate.py data/shapes

say 'training Wave-MLP-T* RetinaNet from scratch on two processes'
bash tools/dist_train.sh "$config" 2 "${amp[@]}" --work-dir "$work" 2>&1 | tee "$log"

[ -f "$work/last_checkpoint" ] || fail 'the training left no checkpoint'
metric() { sed -n "s/.*coco\/$1: \([0-9.]*\).*/\1/p" "$log" | tail -n 1; }
ap=$(metric bbox_mAP)
ap50=$(metric bbox_mAP_50)
[ -n "$ap50" ] || fail 'the trained detector finds nothing'

say 'drawing its boxes beside the ground truth'
"$PYTHON" projects/shapes/draw.py "$config" "$(cat "$work/last_checkpoint")" "$picture"

checkpoint=$(cat "$work/last_checkpoint")
say 'done'
echo "box AP $ap, AP50 $ap50 on held-out scenes"
echo "picture: $picture"
awk -v ap50="$ap50" -v least="$least" 'BEGIN { exit !(ap50 >= least) }' ||
    fail "AP50 $ap50 is below $least: the detector has not learned"

# As short as it can be typed in this folder.
short() { realpath --no-symlinks --relative-base="$root" "$1"; }
case $PYTHON in */*) python=$(short "$PYTHON") ;; *) python=$PYTHON ;; esac
folder=$(short "$work")
checkpoint=$(short "$checkpoint")
cat <<NEXT

Next: draw what it finds in every held-out scene; turn it into its faster form; train a segmentor on the same scenes
  $python tools/test.py $config $checkpoint --show-dir $folder/drawn
  $python tools/to_deploy.py $config $checkpoint $folder/deploy.pth
  tools/dist_train.sh projects/shapes/configs/wavemlp-t-dw_sem-fpn_shapes.py 2
NEXT
