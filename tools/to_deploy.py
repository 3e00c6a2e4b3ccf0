#!/usr/bin/env python
"""Write the deploy form of a trained model's weights, once it is proven to compute the same."""

import argparse

from mmwave import apis
from mmwave.apis.cli import add_settings, add_verbose, run_tool


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the classifier, detector or segmentor')
    parser.add_argument('checkpoint', help='its weights in train form')
    parser.add_argument('dst', help='file to write, .pth or .safetensors')
    add_settings(parser)
    add_verbose(parser)
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that runs code when it is read: only your own',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    done = apis.deploy_checkpoint(
        args.config,
        args.checkpoint,
        args.dst,
        cfg_options=args.cfg_options,
        trust_checkpoint=args.trust_checkpoint,
        verbose=args.verbose,
    )
    print(done.report.summary())
    if done.damage:
        print(f'warning: {done.damage}')
    print(f'largest difference: {done.exact:.1e} in float64, {done.stored:.1e} as stored')
    print(f'wrote {args.dst}; run it with --cfg-options {" ".join(done.options)}')


if __name__ == '__main__':
    run_tool(main, parser())
