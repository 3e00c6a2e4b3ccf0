#!/usr/bin/env bash
# Real labelled images through every task on two processes: projects/real_mini/run.sh STEP...
# MMWAVE_DATA names the folder of the data, WORK the folder for logs, checkpoints and pictures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${MMWAVE_DATA:?set MMWAVE_DATA to the folder that holds coco_mini, ade_like, street_seg and imagenet_like}"
export MMWAVE_DATA
work=${WORK:-work_dirs/real_mini}
mine=projects/real_mini/configs

# roots FOLDER: the options that point the three data loaders at FOLDER.
roots() {
    for split in train val test; do
        echo "${split}_dataloader.dataset.data_root=$MMWAVE_DATA/$1"
    done
}

# coco STEP FAMILY-VARIANT METHOD PIXELS RATE EPOCHS: short runs of the published COCO recipes, images without objects included.
coco() {
    local config scale="($4,$4)" options
    config=$(echo configs/*/"$2_$3_1x_coco.py")
    local annotations=$MMWAVE_DATA/coco_mini/annotations/instances_val2017.json
    # shellcheck disable=SC2207
    options=($(roots coco_mini) val_evaluator.ann_file="$annotations" test_evaluator.ann_file="$annotations"
        model.backbone.init_cfg=None train_dataloader.dataset.filter_cfg.filter_empty_gt=False
        "train_dataloader.dataset.pipeline.2.scale=$scale"
        "val_dataloader.dataset.pipeline.1.scale=$scale" "test_dataloader.dataset.pipeline.1.scale=$scale"
        "train_cfg.max_epochs=$6" "train_cfg.val_interval=$6" param_scheduler.0.end=20 optim_wrapper.optimizer.lr=$5
        default_hooks.logger.interval=9 randomness.seed=0)
    case $3 in
        retinanet) options+=(model.test_cfg.score_thr=0.01) ;;
        mask-rcnn) options+=(model.test_cfg.rcnn.score_thr=0.01) ;;
    esac
    tools/dist_train.sh "$config" 2 --amp --work-dir "$work/$1" --cfg-options "${options[@]}"
    tools/dist_test.sh "$config" "$work/$1/epoch_$6.pth" 2 --work-dir "$work/$1/test" \
        --show-dir "$work/$1/drawn" --cfg-options "${options[@]}"
}

# street_mini STEP FAMILY-VARIANT [OPTION...]: 40 iterations of the UPerNet leaf on crops of 256 x 320, an eighth of its head.
street_mini() {
    local step=$1 config options
    config=$(echo configs/*/"$2_upernet_80k_cityscapes-512x1024.py")
    # shellcheck disable=SC2207
    options=($(roots street_seg/camvid_cityscapes) model.backbone.init_cfg=None train_dataloader.num_workers=1
        model.decode_head.channels=64 model.auxiliary_head.channels=64
        "train_dataloader.dataset.pipeline.2.scale=(512,384)" "train_dataloader.dataset.pipeline.2.ratio_range=(1.0,1.5)"
        "train_dataloader.dataset.pipeline.3.crop_size=(256,320)"
        "val_dataloader.dataset.pipeline.1.scale=(480,360)" "test_dataloader.dataset.pipeline.1.scale=(480,360)"
        train_cfg.max_iters=40 train_cfg.val_begin=100 param_scheduler.0.end=10 param_scheduler.1.begin=10
        param_scheduler.1.end=40 optim_wrapper.optimizer.lr=3e-4 default_hooks.logger.interval=5
        default_hooks.checkpoint.interval=40 randomness.seed=0 "${@:3}")
    tools/dist_train.sh "$config" 2 --amp --work-dir "$work/$step" --cfg-options "${options[@]}"
    tools/dist_test.sh "$config" "$work/$step/iter_40.pth" 2 --work-dir "$work/$step/test" \
        --show-dir "$work/$step/drawn" --cfg-options "${options[@]}"
}

flowers() {
    local config=$mine/wavemlp-t_flowers5.py
    tools/dist_train.sh $config 2 --amp --work-dir "$work/flowers"
    tools/dist_test.sh $config "$work/flowers/epoch_24.pth" 2 --work-dir "$work/flowers/test" \
        --show-dir "$work/flowers/drawn"
}

ade() {
    local config=configs/wavemlp/wavemlp-t_sem-fpn_40k_ade20k-512x512.py options
    # shellcheck disable=SC2207
    options=($(roots ade_like) model.backbone.init_cfg=None train_dataloader.num_workers=1 train_dataloader.batch_size=2
        train_cfg.max_iters=40 train_cfg.val_interval=40 param_scheduler.0.end=40 default_hooks.logger.interval=5
        default_hooks.checkpoint.interval=40 randomness.seed=0)
    tools/dist_train.sh $config 2 --amp --work-dir "$work/ade" --cfg-options "${options[@]}"
    tools/dist_test.sh $config "$work/ade/iter_40.pth" 2 --work-dir "$work/ade/test" --show-dir "$work/ade/drawn" \
        --cfg-options "${options[@]}"
}

camvid() {
    local config=configs/wavemlp/wavemlp-s_upernet_80k_cityscapes-512x1024.py options
    # shellcheck disable=SC2207
    options=($(roots street_seg/camvid_cityscapes) model.backbone.init_cfg=None train_dataloader.num_workers=1
        train_cfg.max_iters=10 train_cfg.val_interval=100 param_scheduler.0.end=3 param_scheduler.1.begin=3
        param_scheduler.1.end=10 optim_wrapper.optimizer.lr=3e-4 default_hooks.logger.interval=1
        default_hooks.checkpoint.interval=10 randomness.seed=0)
    tools/dist_train.sh $config 2 --amp --work-dir "$work/camvid" --cfg-options "${options[@]}"
    tools/dist_test.sh $config "$work/camvid/iter_10.pth" 2 --work-dir "$work/camvid/test" \
        --show-dir "$work/camvid/drawn" --cfg-options "${options[@]}"
}

# Train, test, turn the result into the deploy form, test that: the same scores in less time.
street() {
    local config=$mine/repmlpnet-t256_upernet_camvid.py
    tools/dist_train.sh $config 2 --amp --work-dir "$work/street"
    tools/dist_test.sh $config "$work/street/iter_200.pth" 2 --work-dir "$work/street/test" --show-dir "$work/street/drawn"
    "${PYTHON:-.venv/bin/python}" tools/to_deploy.py $config "$work/street/iter_200.pth" "$work/street/deploy.pth"
    tools/dist_test.sh $config "$work/street/deploy.pth" 2 --work-dir "$work/street/test_deploy" \
        --show-dir "$work/street/drawn_deploy" --cfg-options model.backbone.deploy=True
}

overfit() {
    local config=$mine/wavemlp-t-dw_retinanet_overfit8-coco.py
    tools/dist_train.sh $config 2 --amp --work-dir "$work/overfit"
    tools/dist_test.sh $config "$work/overfit/epoch_16.pth" 2 --work-dir "$work/overfit/test" \
        --show-dir "$work/overfit/drawn"
}

# Kill one of two processes in the third epoch without warning, then go on from the second.
resume() {
    local config=$mine/wavemlp-t_flowers5.py options=(train_cfg.max_epochs=4 default_hooks.logger.interval=1) launcher rank
    rm -rf "$work/resume"
    tools/dist_train.sh $config 2 --amp --work-dir "$work/resume" --cfg-options "${options[@]}" &
    launcher=$!
    until grep -qs 'Epoch(train) *\[3\]' "$work"/resume/*/*.log; do
        kill -0 $launcher || { echo 'training ended before it could be killed' >&2; return 1; }
        sleep 1
    done
    # The launcher has become torchrun, its children are the ranks.
    rank=$(pgrep -P $launcher | tail -n 1)
    echo "== killing process $rank"
    kill -KILL "$rank"
    wait $launcher && { echo 'the launcher hid the loss of a process' >&2; return 1; }
    echo "== resuming"
    tools/dist_train.sh $config 2 --amp --work-dir "$work/resume" --resume --cfg-options "${options[@]}"
}

steps=(flowers retinanet mask-rcnn ade camvid street coco-windows overfit resume)
for variant in posmlp-t vip-s7 gmlp-s16 resmlp-s12 mlp-mixer-b16 eamlp-7 cyclemlp-b1 hiremlp-t asmlp-t activemlp-xt; do
    steps+=("coco-$variant")
done
for variant in posmlp-t vip-s7 gmlp-s16 resmlp-s12 mlp-mixer-b16 eamlp-7 cyclemlp-b2 hiremlp-s asmlp-t activemlp-t; do
    steps+=("street-$variant")
done
steps+=(street-gmlp-s16-resize)

[ $# -gt 0 ] || set -- "${steps[@]}"
for step in "$@"; do
    [[ " ${steps[*]} " == *" $step "* ]] && continue
    echo "error: unknown step '$step': expected $(printf '%s, ' "${steps[@]}" | sed 's/, $//')" >&2
    exit 2
done
for step in "$@"; do
    echo "== $step"
    case $step in
        retinanet | mask-rcnn) coco "$step" wavemlp-t-dw "$step" 320 2e-4 4 ;;
        coco-windows) coco "$step" repmlpnet-t256 retinanet 256 1e-4 4 ;;
        # ViP's RoIs lie on maps of stride 3.5; AS-MLP's authors trained Mask R-CNN.
        coco-vip-s7 | coco-asmlp-t) coco "$step" "${step#coco-}" mask-rcnn 320 1e-4 2 ;;
        coco-*) coco "$step" "${step#coco-}" retinanet 320 1e-4 2 ;;
        street-*-resize) street_mini "$step" gmlp-s16 model.backbone.grid_mode=resize ;;
        street-*) street_mini "$step" "${step#street-}" ;;
        *) "$step" ;;
    esac
done
