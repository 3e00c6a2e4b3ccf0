"""Convert a published weight file to mmwave's names, for ``init_cfg`` and for testing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmwave.errors import UserError

if TYPE_CHECKING:
    from mmwave.convert import ConversionReport

EXAMPLES = (
    'WaveMLP_T_dw.pth.tar wavemlp-t-dw_in1k.pth',
    'gmixer_24_224.safetensors mixer.pth --no-ema',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'src',
        help='weights of PyTorch (.pth, .pt, .pth.tar, .safetensors), MindSpore (.ckpt), Paddle '
        '(.pdparams) or JAX (.npz); the content decides, not the suffix',
    )
    parser.add_argument('dst', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--ema',
        action=argparse.BooleanOptionalAction,
        help='use the averaged weights of a training checkpoint, or the raw ones; without either '
        'option those that the published accuracy is of',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read all of a pickle, which may run any code that its author put in it',
    )


def lines(report: ConversionReport, dst: str) -> list[str]:
    meta = report.meta
    text = [f'read {report.read} tensors of {meta["source"]} ({meta["framework"]})']
    text.append(f'  sha256 {meta["sha256"]}')
    text += [f'  {note}' for note in report.notes]
    text.append(f'recognised {meta["family"]} {meta["arch"]} by the names of {meta["origin"]}')
    text += [f'  dropped {len(names)}: {reason}' for reason, names in report.dropped.items()]
    text += [f'  zeros for {len(names)}: {reason}' for reason, names in report.filled.items()]
    text.append(f'wrote {report.written} tensors to {dst}, for')
    settings = ', '.join(f'{key}={value!r}' for key, value in report.backbone.items())
    text.append(f'  backbone=dict({settings})')
    return text


def main(args: argparse.Namespace) -> None:
    if not args.src:
        raise UserError('the path of the file to convert is empty')
    from mmwave.convert import convert_file

    report = convert_file(args.src, args.dst, ema=args.ema, trust=args.trust_checkpoint)
    print('\n'.join(lines(report, args.dst)))
