#!/usr/bin/env python
"""Time ``axial_sample`` and a product against torchvision's ``deform_conv2d`` at ActiveMLP's sizes.

Equal outputs and gradients first, then a table of how many times faster ours is.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmwave.ops import axial_sample, extension, linear
from speed.equality import Unequal, relative_errors, worst
from speed.options import Parser, exit_status, positive

SIZES = (
    (8, 64, 56, 56, 2),
    (8, 128, 28, 28, 4),
    (8, 320, 14, 14, 4),
    (8, 512, 7, 7, 8),
    (1, 64, 200, 336, 2),
)
"""(N, C, H, W) and channels of a group: the four stages at 224 x 224, the first at 800 x 1344."""


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    given.add_argument('--repeats', type=positive, default=20, help='the fastest run counts')
    given.add_argument('--threads', type=positive, nargs='+', default=[1, 2])
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_status(lambda: benchmark(args.repeats, args.threads))


def benchmark(repeats: int, threads: Sequence[int]) -> int:
    """Print the table; return 1 where outputs differ."""
    if extension.is_built():
        extension.build()
    head = 'N x C x H x W | axis | threads | {} | without kernels: {}'
    passes = 'inference | forward | forward and backward'
    print(head.format(passes, passes))
    for n, c, h, w, share in SIZES:
        for dim in (2, 3):
            ours, theirs, inputs = forms(n, c, h, w, share, dim)
            try:
                check(ours, theirs, inputs)
            except Unequal as error:
                print(f'{n} x {c} x {h} x {w}: {error}', file=sys.stderr)
                return 1
            for number in threads:
                torch.set_num_threads(number)
                ratios = measured(ours, theirs, inputs, repeats)
                shown = ' | '.join(f'{ratio:.1f}' for ratio in ratios)
                print(f'{n} x {c} x {h} x {w} | {"HW"[dim - 2]} | {number} | {shown}', flush=True)
    return 0


def forms(
    n: int, c: int, h: int, w: int, share: int, dim: int
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]:
    """Return our form, torchvision's, and the map, offsets and weight that both accept."""
    from torchvision.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, h, w, c, generator=generator).permute(0, 3, 1, 2)
    offsets = 2 * torch.randn(n, h, w, c // share, generator=generator).permute(0, 3, 1, 2)
    weight = torch.randn(c, c, generator=generator) / c**0.5

    def ours(x: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        rows = axial_sample(x, offsets, dim).permute(0, 2, 3, 1)
        return linear(rows, weight).permute(0, 3, 1, 2)

    def theirs(x: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        # Pairs of offsets, along the height and along the width, one of which is zero.
        moved = offsets.repeat_interleave(share, 1)
        pair = (moved, torch.zeros_like(moved))
        both = torch.stack(pair if dim == 2 else pair[::-1], 2).flatten(1, 2)
        return deform_conv2d(x, both, weight[:, :, None, None])

    return ours, theirs, [x, offsets, weight]


def check(ours: Callable, theirs: Callable, inputs: Sequence[Tensor]) -> None:
    """Raise ``Unequal`` where outputs or gradients differ, with the kernels or without."""

    def results(form: Callable) -> dict[str, Tensor]:
        leaves = [t.detach().requires_grad_() for t in inputs]
        output = form(*leaves)
        pull = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        found = (output.detach(), *torch.autograd.grad(output, leaves, pull))
        return dict(zip(('output', 'x', 'offsets', 'weight'), found, strict=True))

    wanted = results(theirs)
    errors = [relative_errors(results(ours), wanted)]
    with extension.without_kernels():
        errors.append(relative_errors(results(ours), wanted))
    for found in errors:
        if not worst(found) <= 1e-5:
            raise Unequal(f'the outputs differ by {found}')


def measured(
    ours: Callable, theirs: Callable, inputs: Sequence[Tensor], repeats: int
) -> list[float]:
    """Return the ratios: inference, forward, a training step; with the kernels, and without."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    pull = torch.ones_like(theirs(*inputs))

    @torch.no_grad()
    def inference(form: Callable) -> None:
        form(*inputs)

    def forward(form: Callable) -> None:
        form(*leaves)

    def training(form: Callable) -> None:
        torch.autograd.grad(form(*leaves), leaves, pull)

    def plain(*tensors: Tensor) -> Tensor:
        with extension.without_kernels():
            return ours(*tensors)

    runs = [
        (run, form) for run in (inference, forward, training) for form in (theirs, ours, plain)
    ]
    best = [float('inf')] * len(runs)
    for _ in range(repeats):
        for k, (run, form) in enumerate(runs):
            start = time.perf_counter()
            run(form)
            best[k] = min(best[k], time.perf_counter() - start)
    return [best[3 * k] / best[3 * k + form] for form in (1, 2) for k in range(3)]


if __name__ == '__main__':
    sys.exit(main())
