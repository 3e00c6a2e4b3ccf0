"""The set-up: versions that fit each other, and refusals that say what to do."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contracts import ROOT

PYTHONS = ('3.11', '3.12', '3.13')


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    return parser


def requirements(text):
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def required():
    """Every requirement of setup.cfg, those of its extras included, by name."""
    parser = setup_cfg()
    texts = [parser['options']['install_requires'], *parser['options.extras_require'].values()]
    return {r.name: r for text in texts for r in requirements(text) if r.name != 'mmwave-suite'}


def pinned():
    return {r.name: r for r in requirements((ROOT / 'constraints.txt').read_text())}


def test_the_tested_versions_are_allowed():
    versions = {name: str(pin.specifier).removeprefix('==') for name, pin in pinned().items()}
    found = {
        name: requirement.specifier.contains(versions[name])
        for name, requirement in required().items()
    }
    assert found
    assert all(found.values()), [name for name, allowed in found.items() if not allowed]


def test_the_tests_run_with_the_newest_torch_that_is_allowed():
    upper = {spec.operator: spec.version for spec in required()['torch'].specifier}['<']
    tested = Version(str(pinned()['torch'].specifier).removeprefix('=='))
    assert Version(upper) > tested
    assert Version(upper).release[1] == tested.release[1] + 1


def test_a_backbone_needs_neither_mmcv_nor_timm():
    base = {r.name for r in requirements(setup_cfg()['options']['install_requires'])}
    assert base == {'numpy', 'torch', 'onedl-mmengine', 'safetensors'}


def test_every_python_is_named_everywhere():
    parser = setup_cfg()
    for python in PYTHONS:
        assert (
            f'Programming Language :: Python :: {python}\n'
            in parser['metadata']['classifiers'] + '\n'
        )
        assert Requirement(f'python{parser["options"]["python_requires"]}').specifier.contains(
            python
        )
        assert f"'{python}'" in (ROOT / '.github/workflows/ci.yml').read_text()
        assert f'python{python}' in (ROOT / 'tools/setup_env.sh').read_text()
    assert not Requirement(f'python{parser["options"]["python_requires"]}').specifier.contains(
        '3.14'
    )


@pytest.mark.parametrize('which', ['lowest', 'newest'])
def test_the_torch_jobs_ask_for_the_ends_of_the_range(tmp_path, which):
    """.ci/with_torch as it is, with tools that only say how they were called."""
    folder = tmp_path / 'repo'
    (folder / '.ci').mkdir(parents=True)
    shutil.copy(ROOT / 'setup.cfg', folder)
    shutil.copy(ROOT / '.ci/with_torch', folder / '.ci')
    commands = tmp_path / 'bin'
    for name in (commands / 'make', commands / 'uv', folder / '.venv/bin/python'):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text('#!/bin/sh\necho "$(basename $0) $@"\n')
        name.chmod(0o755)
    done = subprocess.run(
        ['bash', folder / '.ci/with_torch', which],
        env={'PATH': f'{commands}:/usr/bin:/bin'},
        capture_output=True,
        text=True,
        check=True,
    )
    called = next(line for line in done.stdout.splitlines() if line.startswith('uv '))
    asked = {r.name: r.specifier for r in map(Requirement, called.split()[-2:])}
    for name in ('torch', 'torchvision'):
        allowed = required()[name].specifier
        lower = next(spec.version for spec in allowed if spec.operator == '>=')
        newer = next(spec.version for spec in allowed if spec.operator == '<')
        assert asked[name].contains(lower + '.0')
        assert asked[name].contains(f'{Version(newer).major}.{Version(newer).minor - 1}.0') == (
            which == 'newest'
        )
    assert done.stdout.splitlines()[-1] == 'make test'


def setup_env(tmp_path, commands, **environment):
    """Run tools/setup_env.sh in an empty folder with nothing on the PATH but ``commands``."""
    for name in ('tools/setup_env.sh', 'pyproject.toml', 'constraints.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / 'bin'
    path.mkdir()
    for command in commands:
        (path / command).symlink_to(shutil.which(command))
    return subprocess.run(
        [shutil.which('bash'), tmp_path / 'tools/setup_env.sh'],
        env={'PATH': str(path)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        ({'MMCV_OPS': 'yes'}, "MMCV_OPS must be 0 or 1, not 'yes'"),
        (
            {'MMCV_OPS': '1', 'PYTHON': sys.executable},
            r'no C\+\+ compiler found, which MMCV_OPS=1 needs: .*',
        ),
        ({}, r'no Python 3.11, 3.12 or 3.13 found \(tried python3.11, .*\): install one, .*'),
        ({'PYTHON': '/bin/false'}, r'no Python .* found \(tried /bin/false\): .*'),
    ],
)
def test_what_the_set_up_cannot_do_it_says_in_one_line(tmp_path, environment, message):
    done = setup_env(tmp_path, ['dirname', 'sed', 'sort', 'head', 'cut'], **environment)
    assert done.returncode == 1
    assert re.fullmatch(f'\nerror: {message}\n', done.stderr), done.stderr
    assert not (tmp_path / '.venv').exists()


def test_no_step_of_the_set_up_compiles_unless_it_is_asked_to():
    text = (ROOT / 'tools/setup_env.sh').read_text()
    plain, asked = text.split('if [ "$MMCV_OPS" = 1 ]; then')
    assert '--no-build-isolation' not in plain
    assert '--no-build-isolation' in asked
    assert 'extra-build-dependencies' not in (ROOT / 'pyproject.toml').read_text()


def test_make_builds_the_environment_that_is_asked_for():
    def would_run(*goal):
        done = subprocess.run(
            ['make', '--dry-run', '--always-make', *goal],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MMCV'))},
        )
        return done.stdout.splitlines()

    assert would_run('env')[0] == 'MMCV_OPS=0 bash tools/setup_env.sh'
    assert would_run('env', 'MMCV_OPS=1')[0] == 'MMCV_OPS=1 bash tools/setup_env.sh'
    assert '.venv/.ready-mmcv-ops' in would_run('env', 'MMCV_OPS=1')[1]
    assert Path(would_run('env')[1].split()[1]).name == '.ready'
