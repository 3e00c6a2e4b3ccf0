"""``projects/exports``: figures of exported files and their table."""

import importlib.util

import pytest

from mmwave.apis.config_names import config_files
from tests.contracts import ROOT

SCRIPT = ROOT / 'projects/exports/measure.py'
PAGE, FIGURES = ROOT / 'docs/export.md', ROOT / 'docs/export.csv'


@pytest.fixture(scope='module')
def measure():
    spec = importlib.util.spec_from_file_location('measure_exports', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(measure, **values):
    return {name: values.get(name, '') for name in measure.FIELDS}


def test_every_family_is_measured(measure):
    files = config_files()
    folders = {files[name].parent.name for name in measure.CONFIGS}
    assert folders == {path.parent.name for path in ROOT.glob('configs/*/metafile.yml')}


def test_the_page_is_current(measure):
    rows = measure.read(FIGURES)
    page = PAGE.read_text()
    assert rows
    assert measure.rendered(page, rows.values()) == page


def test_the_table(measure):
    good = dict(config='a', form='train', sizes='any', relative='1.0e-06', seconds='3.4')
    rows = [row(measure, **good, runtime=runtime) for runtime in measure.RUNTIMES]
    rows[1] |= dict(reason='it cannot', relative='', seconds='')
    rows += [
        row(measure, config='b', form='deploy', sizes='64x64', runtime=runtime, reason='never')
        for runtime in measure.RUNTIMES
    ]
    lines = measure.table(rows).splitlines()
    assert lines[2:] == [
        '| `a` | train | any | 1.0e-06, 3 s | it cannot | 1.0e-06, 3 s |',
        '| `b` | deploy | 64x64 | never | ″ | ″ |',
    ]
    assert 'not measured' in measure.table(rows[:1])


def test_figures_are_replaced_by_newer_ones_of_the_same(measure, tmp_path):
    path = tmp_path / 'figures.csv'
    key = dict(config='a', form='train', sizes='any', runtime='torch')
    for relative in ('1.0e-06', '2.0e-06'):
        rows = measure.read(path)
        new = row(measure, **key, relative=relative)
        rows[tuple(key.values())] = new
        measure.save(path, rows)
    assert [found['relative'] for found in measure.read(path).values()] == ['2.0e-06']
