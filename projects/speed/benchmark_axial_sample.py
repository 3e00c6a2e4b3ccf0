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
            ours, theirs = forms(n, c, h, w, share, dim)
            try:
                check(ours, theirs, dim)
            except Unequal as error:
                print(f'{n} x {c} x {h} x {w}: {error}', file=sys.stderr)
                return 1
            for number in threads:
                torch.set_num_threads(number)
                ratios = measured(ours, theirs, repeats)
                shown = ' | '.join(f'{ratio:.1f}' for ratio in ratios)
                print(f'{n} x {c} x {h} x {w} | {"HW"[dim - 2]} | {number} | {shown}', flush=True)
    return 0


Form = tuple[Callable[..., Tensor], list[Tensor]]
"""A function and its inputs: the map, the offsets and the weight."""


def forms(n: int, c: int, h: int, w: int, share: int, dim: int) -> tuple[Form, Form]:
    """Return our form and torchvision's, each with inputs in its own layout."""
    from torchvision.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, h, w, c, generator=generator).permute(0, 3, 1, 2)
    offsets = 2 * torch.randn(n, h, w, c // share, generator=generator).permute(0, 3, 1, 2)
    weight = torch.randn(c, c, generator=generator) / c**0.5
    # Pairs of offsets, along the height and along the width, one of which is zero.
    moved = offsets.repeat_interleave(share, 1)
    pair = (moved, torch.zeros_like(moved))
    both = torch.stack(pair if dim == 2 else pair[::-1], 2).flatten(1, 2)

    def ours(x: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
        rows = axial_sample(x, offsets, dim).permute(0, 2, 3, 1)
        return linear(rows, weight).permute(0, 3, 1, 2)

    theirs = [x.contiguous(), both.contiguous(), weight[:, :, None, None].contiguous()]
    return (ours, [x, offsets, weight]), (deform_conv2d, theirs)


def check(ours: Form, theirs: Form, dim: int) -> None:
    """Raise ``Unequal`` where outputs or gradients differ, with the kernels or without."""

    def results(form: Form) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in form[1]]
        output = form[0](*leaves)
        pull = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        return [output.detach(), *torch.autograd.grad(output, leaves, pull)]

    def named(output: Tensor, x: Tensor, offsets: Tensor, weight: Tensor) -> dict[str, Tensor]:
        return dict(output=output, x=x, offsets=offsets, weight=weight)

    output, x, offsets, weight = results(theirs)
    n, groups, h, w = ours[1][1].shape
    own_axis = offsets.reshape(n, groups, -1, 2, h, w)[:, :, :, dim - 2].sum(2)
    wanted = named(output, x, own_axis, weight.flatten(1))
    found = [named(*results(ours))]
    with extension.without_kernels():
        found.append(named(*results(ours)))
    for errors in (relative_errors(result, wanted) for result in found):
        if not worst(errors) <= 1e-5:
            raise Unequal(f'the results differ by {errors}')


def measured(ours: Form, theirs: Form, repeats: int) -> list[float]:
    """Return the ratios: inference, forward, a training step; with the kernels, and without."""

    def plain(*tensors: Tensor) -> Tensor:
        with extension.without_kernels():
            return ours[0](*tensors)

    timed = (theirs, ours, (plain, ours[1]))
    leaves = [[t.detach().requires_grad_() for t in inputs] for _, inputs in timed]
    pulls = [torch.ones_like(function(*inputs)) for function, inputs in timed]

    @torch.no_grad()
    def inference(k: int) -> None:
        timed[k][0](*timed[k][1])

    def forward(k: int) -> None:
        timed[k][0](*leaves[k])

    def training(k: int) -> None:
        torch.autograd.grad(timed[k][0](*leaves[k]), leaves[k], pulls[k])

    runs = [(run, k) for run in (inference, forward, training) for k in range(len(timed))]
    best = dict.fromkeys(runs, float('inf'))
    for _ in range(repeats):
        for run, k in runs:
            start = time.perf_counter()
            run(k)
            best[run, k] = min(best[run, k], time.perf_counter() - start)
    return [best[run, 0] / best[run, k] for k in (1, 2) for run in (inference, forward, training)]


if __name__ == '__main__':
    sys.exit(main())
