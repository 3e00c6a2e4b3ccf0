"""Write a checkpoint's weights alone, named by their hash and described, for others to use."""

import argparse

from mmwave import apis
from mmwave.cli.options import add_trust, add_verbose

EXAMPLES = (
    'work_dirs/my/best_mIoU_epoch_12.pth --out published',
    'epoch_12.pth --config my.py --name my-segmentor --format pth',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', help='of a training, or any file of weights')
    parser.add_argument(
        '--config',
        help='its config, by name or path, if not the one in the checkpoint: its model must fit',
    )
    parser.add_argument(
        '--out', metavar='DIR', help="folder to write to (default: the checkpoint's)"
    )
    parser.add_argument(
        '--ema',
        action=argparse.BooleanOptionalAction,
        help='the averaged weights, or the raw ones (default: averaged, where there are any)',
    )
    parser.add_argument('--name', help="what the file's name begins with (default: the config's)")
    parser.add_argument(
        '--format',
        choices=('safetensors', 'pth'),
        default='safetensors',
        help="pth for programs that read torch's files alone",
    )
    add_verbose(parser)
    add_trust(parser)


def main(args: argparse.Namespace) -> None:
    done = apis.publish(
        args.checkpoint,
        config=args.config,
        out=args.out,
        ema=args.ema,
        name=args.name,
        file_format=args.format,
        trust_checkpoint=args.trust_checkpoint,
        verbose=args.verbose,
    )
    which = 'averaged (EMA)' if done.weights == 'averaged' else 'raw, not averaged'
    print(f'weights: {which}, {done.num_tensors} tensors')
    for line in done.remarks:
        print(f'warning: {line}')
    print(f'read  {done.source_size:>15,} bytes  {args.checkpoint}')
    print(f'wrote {done.size:>15,} bytes  {done.path}')
    print(f'card: {done.card}; read it, and fill in the licence')
