"""What the benchmarks of backbones and of whole models do around their measurements."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from mmwave.errors import UserError
from mmwave.inspect.timing import machine

from .cases import Case, Result, check_repeats
from .equality import Unequal
from .report import Layout, Record, as_csv, table


def prepare(args: argparse.Namespace) -> None:
    """Check the options of ``add_measuring`` and make float32 products exact.

    Raises:
        UserError: naming the option that cannot be met.
    """
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('no CUDA device here: use --device cpu')
    check_repeats(args.repeats)
    if args.csv and not args.csv.parent.is_dir():
        raise UserError(f'no folder {str(args.csv.parent)!r} to write {args.csv.name!r} into')
    # Convolutions, which a peer has where ours has matrix products, would round more coarsely.
    torch.backends.cudnn.allow_tf32 = False


def measure(
    todo: Sequence[Case],
    run: Callable[[Case[Any]], Result],
    args: argparse.Namespace,
    *,
    layout: Callable[[Result], Layout],
    records: Callable[[Iterable[Result], str], Iterable[Record]],
    skip: tuple[type[Exception], ...] = (),
) -> int:
    """Measure case by case, print the table and write the file again after each.

    Args:
        todo: the cases.
        run: measures one.
        args: options of ``add_measuring``.
        layout: of the table.
        records: results and machine -> lines of the file.
        skip: errors, beside ``Unequal``, that end a case and not the benchmark.

    Returns:
        Exit status: 1 where a model was not measured or a form of ours does not compute the same.
    """
    here, results, failed = machine(args.device), list[Result](), False
    print(here, flush=True)

    def measured() -> Iterator[Result]:
        nonlocal failed
        for case in todo:
            try:
                result = run(case)
            except Unequal as error:
                problem = f'{case.model.name}: nothing is timed: {error}'
            except skip as error:
                problem = str(error)
            else:
                failed |= not result.sound
                results.append(result)
                if args.csv:
                    args.csv.write_text(as_csv(records(results, here)))
                yield result
                continue
            failed = True
            print(f'error: {problem}', file=sys.stderr, flush=True)

    for line in table(measured(), layout, repeats=args.repeats):
        print(line, flush=True)
    return int(failed)
