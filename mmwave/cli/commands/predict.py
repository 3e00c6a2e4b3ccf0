"""Predict pictures and videos: draw what is found, and write it as data."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmwave import apis
from mmwave.apis.predicting.call import FORMS, settle_call
from mmwave.cli.options import add_config, add_settings, add_trust, add_verbose

EXAMPLES = (
    'wavemlp-t_retinanet_1x_coco weights.pth street.jpg photos/ --out found',
    "my.py work_dirs/my/epoch_12.pth 'clips/*.mp4' --out found --json coco --thr 0.5",
)
_SECONDS = 10.0  # between lines of progress where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument('checkpoint', help='weights, written by a training or a conversion')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='pictures, videos, folders with all below, patterns, or .txt lists of paths',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of results')
    parser.add_argument(
        '--json',
        choices=FORMS,
        default='lines',
        help="a detector's data: predictions.jsonl (default) or COCO results",
    )
    parser.add_argument(
        '--thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='draw and count objects from this score (default: 0.3); data files have all',
    )
    parser.add_argument('--tta', action='store_true', help='merge several views of every picture')
    parser.add_argument('--deploy', action='store_true', help='compute with the deploy form')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--batch', type=int, default=1, metavar='N', help='pictures at once (default: 1)'
    )
    parser.add_argument('--device', help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    parser.add_argument('--overwrite', action='store_true', help='replace earlier results in DIR')
    add_settings(parser)
    add_verbose(parser)
    add_trust(parser)


@contextmanager
def progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Yield what shows the numbers of pictures done and expected, and what shows a warning."""
    if not sys.stderr.isatty():
        shown = float('inf')  # until the first picture

        def line(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if not done:
                shown = now
            elif now - shown >= _SECONDS:
                shown = now
                print(f'{done} of {total}', file=sys.stderr, flush=True)

        yield line, lambda text: print(f'warning: {text}', file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    screen = Console(stderr=True, highlight=False)
    columns = (TextColumn('predicting'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task('', total=None)
        yield (
            lambda done, total: bar.update(task, completed=done, total=total),
            lambda text: screen.print(f'warning: {text}', markup=False, soft_wrap=True),
        )


def main(args: argparse.Namespace) -> None:
    # Once more than it would be, but before seconds of imports.
    settle_call(
        args.inputs,
        out=args.out,
        json=args.json,
        thr=args.thr,
        batch=args.batch,
        overwrite=args.overwrite,
    )
    with progress() as (on_progress, on_warning):
        done = apis.predict(
            args.config,
            args.checkpoint,
            args.inputs,
            out=args.out,
            json=args.json,
            thr=args.thr,
            tta=args.tta,
            deploy=args.deploy,
            amp=args.amp,
            batch=args.batch,
            device=args.device,
            cfg_options=args.cfg_options,
            overwrite=args.overwrite,
            trust_checkpoint=args.trust_checkpoint,
            verbose=args.verbose,
            on_progress=on_progress,
            on_warning=on_warning,
        )
    print(done.summary())
