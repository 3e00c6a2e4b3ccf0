"""Train a classifier, detector or segmentor: the config states which."""

import argparse

from mmwave import apis
from mmwave.cli.options import add_config, add_run_options
from mmwave.cli.processes import start_processes

EXAMPLES = (
    'wavemlp-t_retinanet_1x_coco --gpus 8 --amp',
    'my.py --epochs 12 --batch 4 --lr 1e-4 --track tensorboard',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from a checkpoint, with no path from the last in the folder',
    )
    parser.add_argument(
        '--load-from', metavar='PATH', help='start from these weights, those of a whole model'
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--epochs', type=int, metavar='N', help='train so long; schedules are scaled to it'
    )
    length.add_argument(
        '--iters', type=int, metavar='N', help='the same, where the config counts iterations'
    )
    parser.add_argument('--batch', type=int, metavar='N', help='images of a process in a step')
    parser.add_argument('--lr', type=float, metavar='X', help='learning rate')
    parser.add_argument(
        '--track',
        choices=('tensorboard', 'wandb'),
        metavar='NAME',
        help='send curves to tensorboard or wandb as well',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    add_run_options(parser)


def main(args: argparse.Namespace) -> None:
    if args.gpus is not None:
        start_processes('train', args)
    cfg = apis.prepare_training(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        load_from=args.load_from,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        shorthands=apis.Shorthands(
            epochs=args.epochs, iters=args.iters, batch=args.batch, lr=args.lr, track=args.track
        ),
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
