"""Wheel and source distribution: what they hold, and that an installed wheel needs no checkout."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from shutil import copytree

import numpy
import pytest

from tests.contracts import ROOT

ELSEWHERE = ('.git', '.venv', '.uv', 'build', 'checkpoints', 'dist', 'work_dirs')
BUILD = 'import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])'
CLASSES = 'dataset.metainfo.classes=[circle,ring,square,star,triangle]'
TINY = (
    *('train_dataloader.dataset.data_root={data}', 'val_dataloader.dataset.data_root={data}'),
    *(f'train_dataloader.{CLASSES}', f'val_dataloader.{CLASSES}'),
    *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0'),
    *('model.head.num_classes=5', 'data_preprocessor.num_classes=5'),
    *('val_dataloader.batch_size=2', 'default_hooks.checkpoint.save_best=None'),
)


def setup_py():
    spec = importlib.util.spec_from_file_location('setup_py', ROOT / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_outside_the_repository():
    text = (
        'See [a](docs/a.md#b), [b](#b), [c](https://example.org/c).\n![p](x/p.jpg)\n'
        '[![badge](x/b.svg)](docs/b.md)\n```python\na[0](b)\n```\n'
    )
    plain = setup_py().long_description(text)
    assert plain == (
        'See a, b, [c](https://example.org/c).\n*p*\n*badge*\n```python\na[0](b)\n```\n'
    )
    linked = setup_py().long_description(text, 'https://example.org/r')
    assert '[a](https://example.org/r/blob/HEAD/docs/a.md#b), b,' in linked
    assert '![p](https://example.org/r/raw/HEAD/x/p.jpg)' in linked
    assert 'a[0](b)\n' in linked


def test_the_readme_leads_nowhere_that_is_not_there():
    text = setup_py().long_description((ROOT / 'README.md').read_text())
    links = [part.partition(')')[0] for part in text.split('](')[1:]]
    assert links
    assert all(link.startswith('https://') for link in links)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('wheel')


@pytest.fixture(scope='module')
def sdist(folder):
    """A source distribution, unpacked."""

    def ignored(where, names):
        top = ('data', *ELSEWHERE) if Path(where) == ROOT else ('work_dirs',)
        return {n for n in names if n in top or n == '__pycache__' or n.endswith('.egg-info')}

    copytree(ROOT, folder / 'tree', ignore=ignored)
    return unpacked(build('build_sdist', folder / 'tree', folder / 'sdist'), folder / 'source')


@pytest.fixture(scope='module')
def wheel(sdist, folder):
    """A wheel, built of the source distribution."""
    return build('build_wheel', sdist, folder / 'wheel')


@pytest.fixture(scope='module')
def run(wheel, folder):
    """Runs commands of an environment that has the wheel, and the libraries of this one."""
    subprocess.run([sys.executable, '-m', 'venv', folder / 'env'], check=True)
    libraries = Path(numpy.__file__).parents[1]
    (site,) = (folder / 'env/lib').glob('python*/site-packages')
    # A path is searched; files of editable installs in it are not read.
    (site / 'libraries.pth').write_text(f'{libraries}\n')
    (folder / 'here').mkdir()

    def run(*command):
        program, *arguments = map(str, command)
        environment = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHON')}
        done = subprocess.run(
            [folder / 'env/bin' / program, *arguments],
            cwd=folder / 'here',
            env={**environment, 'OMP_NUM_THREADS': '1', 'VIRTUAL_ENV': '', 'CONDA_PREFIX': ''},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run('python', '-m', 'pip', 'install', '--no-deps', '--no-index', wheel)
    return run


def build(kind, tree, out):
    out.mkdir()
    subprocess.run(
        [sys.executable, '-c', BUILD, kind, out], cwd=tree, check=True, capture_output=True
    )
    (built,) = out.iterdir()
    return built


def unpacked(archive, into):
    with tarfile.open(archive) as file:
        file.extractall(into, filter='data')
    (root,) = into.iterdir()
    return root


def files_in(folder, *patterns):
    """Files below a folder of the repository, relative to its root, without what Python left."""
    found = {p for pattern in patterns for p in (ROOT / folder).rglob(pattern) if p.is_file()}
    return {str(p.relative_to(ROOT)) for p in found if '__pycache__' not in p.parts}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_source_distribution_holds_the_repository(sdist):
    found = {str(p.relative_to(sdist)) for p in sdist.rglob('*')}
    for name in ('configs', 'docs', 'mmwave', 'tests', 'tools'):
        assert files_in(name, '*.py', '*.md', '*.yml', '*.sh', '*.json', '*.cpp', '*.h') <= found
    assert {'CHANGELOG.md', 'constraints.txt', 'model-index.yml', 'tests/conftest.py'} <= found
    assert not [name for name in found if '__pycache__' in name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_holds_configs_and_tools(wheel):
    with zipfile.ZipFile(wheel) as file:
        found = {name.removeprefix('mmwave/.mim/'): name for name in file.namelist()}
        (metadata,) = [name for name in file.namelist() if name.endswith('/METADATA')]
        assert '# mmwave' in file.read(metadata).decode()
    assert files_in('configs', '*.py', '*.yml', '*.md') | {'model-index.yml'} <= found.keys()
    of_the_checkout = {'tools/setup_env.sh', 'tools/update_zoo.py'}
    assert files_in('tools', '*.py', '*.sh') - found.keys() == of_the_checkout
    assert {'mmwave/py.typed', *files_in('mmwave', '*.py', '*.cpp', '*.h')} <= found.keys()
    assert not [name for name in found if name.startswith(('tests', 'projects'))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.long
def test_the_installed_command_trains_a_shipped_config_by_name(run, folder):
    assert 'train' in run('mmwave', '--help')
    where = run('python', '-c', 'import mmwave; print(mmwave.__file__)')
    assert where.startswith(str(folder / 'env'))
    generate = ROOT / 'projects/shapes/generate.py'
    run('python', generate, folder / 'data', '--train', '8', '--val', '4', '--size', '64')
    data = folder / 'data/imagenet'
    options = [option.format(data=data) for option in TINY]
    shown = run(
        'mmwave',
        'train',
        'wavemlp-t-dw_in1k',
        *('--work-dir', 'work', '--epochs', '1', '--batch', '2'),
        '--cfg-options',
        *options,
    )
    assert (folder / 'here/work/epoch_1.pth').is_file(), shown
    # Further commands that a user types after it: add them here.


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_installed_launcher_finds_its_interpreter(run, folder):
    """By the path of the script alone: no environment is active."""
    (tools,) = (folder / 'env/lib').glob('python*/site-packages/mmwave/.mim/tools')
    script = f'. {tools}/launch.sh; echo "$PYTHON"'
    done = subprocess.run(
        ['bash', '-c', script], env={'PATH': '/usr/bin:/bin'}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(folder / 'env/bin/python')
    assert os.access(tools / 'dist_train.sh', os.X_OK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_libraries_find_shipped_models_by_name(run):
    code = 'import mmwave; from mmpretrain import get_model; print(get_model("wavemlp-t_in1k"))'
    assert '(backbone): WaveMLP' in run('python', '-c', code)
    code = 'import mmwave; from mmpretrain import list_models; print(list_models("wavemlp-t_"))'
    assert 'wavemlp-t_in1k' in run('python', '-c', code)
