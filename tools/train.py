#!/usr/bin/env python
"""Train a classifier, detector or segmentor: the config states which."""

import argparse

from mmwave import apis
from mmwave.apis.cli import add_run_options, run_tool


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
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
    return parser


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


if __name__ == '__main__':
    run_tool(main, parser())
