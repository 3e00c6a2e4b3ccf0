"""The suites of measurements behind docs/speed. Which models they measure, the peers declare."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mmwave.errors import UserError

from .options import DTYPES

ROOT = Path(__file__).parents[3]
"""The top folder of the repository."""
PROJECT = 'projects/speed'
BOTH = ('--dtype', *DTYPES)


@dataclass(frozen=True)
class Suite:
    """Some models under the same options.

    Attributes:
        script: which benchmark.
        options: of its command line.
    """

    script: str
    options: tuple[str, ...]


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        'inference_224': Suite('benchmark.py', ('--size', '224x224@8', *BOTH)),
        'inference_512': Suite('benchmark.py', ('--size', '512x512@1', *BOTH)),
        'inference_800': Suite('benchmark.py', ('--size', '800x1344@1', *BOTH)),
        'contenders': Suite(
            'benchmark.py', ('--size', '224x224@8', '512x512@1', *BOTH, '--contenders')
        ),
        'train_224': Suite(
            'benchmark.py', ('--size', '224x224@4', '--mode', 'train', '--repeats', '5')
        ),
        'retinanet': Suite('benchmark_models.py', ('--size', '800x1333', '--repeats', '5')),
        'upernet': Suite('benchmark_models.py', ('--size', '512x1024', '--repeats', '5')),
        'compiled': Suite('benchmark.py', ('--size', '224x224@8', '--compile', '--repeats', '5')),
    }
)
"""Name of the CSV file -> what is measured for it."""


def members(suite: str) -> list[str]:
    """Return the models of a suite as its script accepts them, or config files.

    Raises:
        UserError: where there is no such suite, or a peer names a config that is not there.
    """
    from .cases import check_one_of
    from .peers import PEERS

    check_one_of('suite', suite, SUITES)
    found = []
    for family, peer in PEERS.items():
        for name in peer.suites.get(suite, ()):
            if SUITES[suite].script == 'benchmark.py':
                found.append(f'{family}-{name}')
                continue
            configs = sorted(ROOT.glob(f'configs/*/{name}.py'))
            if not configs:
                raise UserError(f'{suite}: no config {name}')
            found.append(str(configs[0].relative_to(ROOT)))
    return found


def commands(suites: Iterable[str], out: Path) -> Iterator[list[str]]:
    """Yield the command of each suite that has models, then that of plot and tables."""
    for name in suites:
        models = members(name)
        if models:
            suite = SUITES[name]
            csv = str(out / f'{name}.csv')
            yield [f'{PROJECT}/{suite.script}', *models, *suite.options, '--csv', csv]
    csvs = [str(path) for path in sorted(out.glob('*.csv'))]
    readme = out / 'README.md'
    tables = ['--readme', str(readme)] if readme.exists() else []
    yield [f'{PROJECT}/plot_speed.py', *csvs, str(out / 'speed.png'), *tables]
