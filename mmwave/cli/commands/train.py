"""Train a classifier, detector or segmentor: the config states which."""

import argparse

from mmwave import apis
from mmwave.cli.options import add_config, add_run_options

EXAMPLES = (
    'wavemlp-t_retinanet_1x_coco --amp',
    'my.py --resume --cfg-options train_dataloader.batch_size=4',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from this checkpoint, or with no path from the last one in the work folder',
    )
    parser.add_argument(
        '--load-from', metavar='PATH', help='start from these weights, those of a whole model'
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    add_run_options(parser)


def main(args: argparse.Namespace) -> None:
    cfg = apis.prepare_training(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        load_from=args.load_from,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        cfg_options=args.cfg_options,
        num_procs=args.check_only,
        verbose=args.verbose,
    )
    if args.check_only is None:
        apis.train(
            cfg,
            launcher=args.launcher,
            trust_checkpoint=args.trust_checkpoint,
            verbose=args.verbose,
        )
