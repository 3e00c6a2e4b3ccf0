"""Export a trained model to ONNX, torch.export or OpenVINO: run there and compared, or refused."""

import argparse
import sys

from mmwave.cli.options import add_config, add_settings, add_trust, add_verbose

EXAMPLES = (
    'wavemlp-t_in1k weights.pth wavemlp-t.onnx',
    'my.py work_dirs/my/epoch_12.pth my.xml --fixed 512x1024 --images pictures',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', help='weights, written by a training or a conversion')
    parser.add_argument(
        'out', help='file to write: .onnx, .pt2 (torch.export) or .xml (OpenVINO, beside it .bin)'
    )
    parser.add_argument(
        '--fixed',
        nargs='?',
        const=True,
        default=False,
        metavar='HxW',
        help='for images of this size alone, without a value the size of the test images; '
        'otherwise the file accepts any size and any number of images',
    )
    parser.add_argument(
        '--batch', type=int, default=1, metavar='N', help='images per batch of a --fixed size'
    )
    parser.add_argument(
        '--deploy',
        action=argparse.BooleanOptionalAction,
        help='export the deploy form of the backbone (default: where there is one)',
    )
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='images to compare the file on (default: the test data, or generated ones)',
    )
    add_settings(parser)
    add_verbose(parser)
    add_trust(parser)


def main(args: argparse.Namespace) -> int:
    from mmwave.export import DifferenceError, export_model
    from mmwave.export.plan import parse_size

    try:
        done = export_model(
            args.config,
            args.checkpoint,
            args.out,
            fixed=parse_size(args.fixed) if isinstance(args.fixed, str) else args.fixed,
            batch=args.batch,
            deploy=args.deploy,
            images=args.images,
            cfg_options=args.cfg_options,
            trust_checkpoint=args.trust_checkpoint,
            verbose=args.verbose,
        )
    except DifferenceError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for line in done.folded:
        print(f'folded {line}')
    print(f'compared in {done.runtime} with the model in torch, on {done.images}:')
    for row in done.comparisons:
        count, _, height, width = row.shape
        print(
            f'  {count} of {height} x {width}: largest difference {row.absolute:.1e}, '
            f'{row.relative:.1e} of the largest magnitude'
        )
    print(f'wrote {" and ".join(str(path) for path in done.files)} in {done.seconds:.0f} s')
    print(f'sizes of images: {done.metadata["sizes"]}; images per batch: {done.metadata["batch"]}')
    return 0
