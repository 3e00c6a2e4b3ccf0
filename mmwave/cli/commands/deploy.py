"""Write the deploy form of a trained model's weights, once it is proven to compute the same."""

import argparse

from mmwave import apis
from mmwave.cli.options import add_config, add_settings, add_trust, add_verbose

EXAMPLES = (
    'repmlpnet-t256_in1k weights.pth deployed.pth',
    'my.py work_dirs/my/epoch_12.pth my-deployed.safetensors',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', help='its weights in train form')
    parser.add_argument('dst', help='file to write, .pth or .safetensors')
    add_settings(parser)
    add_verbose(parser)
    add_trust(parser)


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
