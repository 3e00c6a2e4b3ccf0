"""Shipped configs, found by name from any folder."""

import os

import pytest

from mmwave.apis.config_names import config_files, configs_folder, find_config
from mmwave.apis.usage import UsageError
from tests.contracts import ROOT

PATH = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'name',
    [
        'wavemlp-t_in1k',
        'wavemlp-t_in1k.py',
        'wavemlp/wavemlp-t_in1k.py',
        'configs/wavemlp/wavemlp-t_in1k',
        str(PATH),
    ],
)
def test_a_name_or_a_path(name):
    assert os.path.samefile(find_config(name), PATH)


def test_a_file_here_comes_first(tmp_path):
    own = tmp_path / 'wavemlp-t_in1k.py'
    own.write_text('')
    assert find_config('wavemlp-t_in1k.py') == 'wavemlp-t_in1k.py'


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('wavemlp-t_in1', 'no such config: wavemlp-t_in1; did you mean wavemlp-t_in1k'),
        ('resmlp/wavemlp-t_in1k', 'no such config: resmlp/wavemlp-t_in1k; did you mean wavemlp-t'),
        ('/none/wavemlp-t_in1k.py', 'no such config: /none/wavemlp-t_in1k.py'),
        ('???', r'no such config: \?\?\?$'),
        ('', 'no such config: $'),
    ],
)
def test_others(name, message):
    with pytest.raises(UsageError, match=message):
        find_config(name)


def test_another_kind_of_file(tmp_path):
    (tmp_path / 'a.pth').write_text('')
    with pytest.raises(UsageError, match=r'a\.pth is no config: expected a \.py, \.json'):
        find_config('a.pth')


def test_every_config_has_a_name_of_its_own():
    assert configs_folder() == ROOT / 'configs'
    files = [path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_']
    assert sorted(config_files().values()) == sorted(files)
