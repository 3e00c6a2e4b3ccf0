#!/usr/bin/env python
"""Export models in every form and runtime, and render what came of it into docs/export.md.

Weights are random: what is measured is whether a file computes the same as its model. Rows of the
same config, form and runtime in the CSV are replaced, others stay.
"""

import argparse
import csv
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmwave.cli import run_tool

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = (
    *('activemlp-xt_in1k', 'asmlp-t_in1k', 'cyclemlp-b1_in1k', 'eamlp-7_in1k', 'gmlp-ti16_in1k'),
    *('hiremlp-t_in1k', 'mlp-mixer-s16_in1k', 'posmlp-t_in1k', 'repmlpnet-t224_in1k'),
    *('resmlp-s12_in1k', 'vip-s7_in1k', 'wavemlp-t-dw_in1k'),
    *('wavemlp-t_retinanet_1x_coco', 'wavemlp-t_sem-fpn_40k_ade20k-512x512'),
    *('hiremlp-s_upernet_160k_ade20k-512x512', 'wavemlp-t_mask-rcnn_1x_coco'),
)
"""The smallest variant of every family with a linear head, and one model of each dense kind."""

KEY = ('config', 'form', 'sizes', 'runtime')
FIELDS = (*KEY, 'task', 'absolute', 'relative', 'seconds', 'megabytes', 'reason')
RUNTIMES = {'onnxruntime': '.onnx', 'torch': '.pt2', 'openvino': '.xml'}
_BLOCK = re.compile(r'(?<=<!-- exports:begin -->\n).*?(?=<!-- exports:end -->)', re.DOTALL)

Row = dict[str, str]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help=f'default: {len(CONFIGS)}')
    parser.add_argument(
        '--forms', nargs='+', choices=('train', 'deploy'), default=['train', 'deploy']
    )
    parser.add_argument('--runtimes', nargs='+', choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument('--fixed', metavar='HxW', help='one size of images (default: any)')
    parser.add_argument('--csv', type=Path, default=ROOT / 'docs/export.csv')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs/export.md')
    only = parser.add_mutually_exclusive_group()
    only.add_argument('--render', action='store_true', help='measure nothing, render the page')
    only.add_argument('--check', action='store_true', help='exit 1 where the page is stale')
    return parser


def measured(
    config: str, forms: Iterable[str], runtimes: Iterable[str], fixed: str | None
) -> Iterator[Row]:
    """Yield a row per form and runtime of a config."""
    import torch

    from mmwave.apis import load_config
    from mmwave.apis.building import build_model
    from mmwave.apis.config_names import find_config
    from mmwave.engine.console import console
    from mmwave.errors import UserError
    from mmwave.export import DifferenceError
    from mmwave.export.api import in_form, trace, verify, write
    from mmwave.export.formats import FORMATS
    from mmwave.export.functions import function_of
    from mmwave.export.images import Normalisation, find_images
    from mmwave.export.plan import Plan, parse_size

    with console():
        cfg = load_config(find_config(config))
        torch.manual_seed(0)
        model = randomised(build_model(cfg).float().eval())
    plan = Plan.of(cfg, parse_size(fixed) if fixed else False, 1)
    images, norm = find_images(cfg, None), Normalisation.of(model)
    for form in forms:
        shared = {'config': config, 'form': form, 'sizes': fixed or 'any'}
        try:
            start = time.perf_counter()
            exported, _ = in_form(model, form == 'deploy')
            with console():
                traced = trace(function_of(exported), plan, norm, {})
            traced_in = time.perf_counter() - start
        except UserError as error:
            for runtime in runtimes:
                yield {**shared, 'runtime': runtime, 'reason': str(error)}
            continue
        for runtime in runtimes:
            row = {**shared, 'runtime': runtime, 'task': traced.metadata['task']}
            file_format = FORMATS[RUNTIMES[runtime]]
            with tempfile.TemporaryDirectory() as folder, console():
                start = time.perf_counter()
                path = Path(folder) / f'model{RUNTIMES[runtime]}'
                try:
                    files = write(file_format, traced, path)
                    row['seconds'] = f'{traced_in + time.perf_counter() - start:.1f}'
                    row['megabytes'] = f'{sum(f.stat().st_size for f in files) / 1e6:.1f}'
                    rows = verify(file_format, path, function_of(model), traced, plan, images, norm)
                    row['absolute'] = f'{max(r.absolute for r in rows):.1e}'
                    row['relative'] = f'{max(r.relative for r in rows):.1e}'
                except DifferenceError as error:
                    row['reason'] = str(error).removesuffix('; nothing was written')
            yield row


def randomised(model):
    """Fill the statistics of batch norms, which are the identity otherwise."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model


def read(path: Path) -> dict[tuple[str, ...], Row]:
    if not path.exists():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        return {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}


def save(path: Path, rows: dict[tuple[str, ...], Row]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, FIELDS, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows, key=_order))


def _order(key: tuple[str, ...]) -> tuple:
    config, form, sizes, runtime = key
    known = CONFIGS.index(config) if config in CONFIGS else len(CONFIGS)
    return known, config, sizes != 'any', form != 'train', list(RUNTIMES).index(runtime)


def table(rows: Iterable[Row]) -> str:
    """Return the table of the page: a line per config, form and size, a column per runtime."""
    lines = [
        f'| config | form | sizes | {" | ".join(RUNTIMES)} |',
        f'|---|---|---|{"---|" * len(RUNTIMES)}',
    ]
    grouped: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        cell = row['reason'] or f'{row["relative"]}, {float(row["seconds"]):.0f} s'
        grouped.setdefault((row['config'], row['form'], row['sizes']), {})[row['runtime']] = cell
    for (config, form, sizes), cells in grouped.items():
        same = set(cells.values())
        if len(same) == 1 and len(cells) == len(RUNTIMES):  # a reason that all have
            shown = [*same, *['″'] * (len(RUNTIMES) - 1)]
        else:
            shown = [cells.get(runtime, 'not measured') for runtime in RUNTIMES]
        lines.append(f'| `{config}` | {form} | {sizes} | {" | ".join(shown)} |')
    return '\n'.join(lines) + '\n'


def rendered(page: str, rows: Iterable[Row]) -> str:
    return _BLOCK.sub(lambda _: table(rows), page)


def main(args: argparse.Namespace) -> int:
    rows = read(args.csv)
    for config in () if args.render or args.check else args.configs or CONFIGS:
        for row in measured(config, args.forms, args.runtimes, args.fixed):
            row = {name: row.get(name, '') for name in FIELDS}
            rows[tuple(row[name] for name in KEY)] = row
            save(args.csv, rows)
            print(*(row[name] for name in FIELDS if row[name]), flush=True)
    page = args.page.read_text(encoding='utf-8')
    fresh = rendered(page, read(args.csv).values())
    if args.check:
        print('stale: render it again' if fresh != page else 'the table is current')
        return int(fresh != page)
    args.page.write_text(fresh, encoding='utf-8')
    return 0


if __name__ == '__main__':
    run_tool(main, parser())
