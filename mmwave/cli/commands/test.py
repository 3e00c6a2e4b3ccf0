"""Evaluate a classifier, detector or segmentor on its test data: the config states which."""

import argparse

from mmwave import apis
from mmwave.cli.options import add_config, add_run_options
from mmwave.cli.processes import start_processes

EXAMPLES = (
    'wavemlp-t_retinanet_1x_coco weights.pth --show-dir pictures',
    'my.py work_dirs/my/epoch_12.pth --tta --out predictions.pkl',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', help='weights, written by a training or a conversion')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument(
        '--show-dir',
        metavar='FOLDER',
        help='draw the predictions into this folder',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: merge the predictions of several views of every image',
    )
    add_run_options(parser)


def main(args: argparse.Namespace) -> None:
    if args.gpus is not None:
        start_processes('test', args)
    cfg = apis.prepare_testing(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        tta=args.tta,
        cfg_options=args.cfg_options,
        num_procs=args.check_only,
        verbose=args.verbose,
    )
    if args.check_only is None:
        apis.test(
            cfg,
            launcher=args.launcher,
            trust_checkpoint=args.trust_checkpoint,
            verbose=args.verbose,
        )
