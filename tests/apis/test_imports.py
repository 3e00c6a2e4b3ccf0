"""A module beside a config that Python does not find: the message says where it is."""

import sys

import pytest

from mmwave.apis import UsageError, load_config

TEXT = '_base_ = []\n'  # mmengine runs such configs; others' imports wait until they are used


@pytest.fixture(autouse=True)
def no_modules(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [p for p in sys.path if p not in ('', str(tmp_path))])


@pytest.mark.parametrize(
    'text',
    [
        'import their_heads',
        'from their_heads import Head',
        "custom_imports = dict(imports=['their_heads'], allow_failed_imports=False)",
        "custom_imports = dict(imports='their_heads', allow_failed_imports=False)",
    ],
)
@pytest.mark.parametrize('where', ['my project/configs', 'my project', '.'])
@pytest.mark.parametrize('module', ['their_heads.py', 'their_heads/__init__.py'])
def test_the_folder_that_finds_it_is_named(tmp_path, text, where, module):
    config = tmp_path / 'my project/configs/a.py'
    config.parent.mkdir(parents=True)
    config.write_text(TEXT + text)
    file = tmp_path / where / module
    file.parent.mkdir(exist_ok=True)
    file.write_text('Head = 1')
    with pytest.raises(UsageError) as caught:
        load_config(str(config))
    folder = str((tmp_path / where).resolve())
    shown = f"'{folder}'" if ' ' in folder else folder
    assert str(caught.value) == (
        f'{config} imports their_heads, which Python does not find: set PYTHONPATH={shown}'
    )
    sys.path.append(folder)  # and so it is found
    try:
        load_config(str(config))
    finally:
        sys.modules.pop('their_heads', None)


def test_a_module_that_is_nowhere(tmp_path):
    config = tmp_path / 'a.py'
    config.write_text(f'{TEXT}import their_heads.parts')
    with pytest.raises(UsageError, match=r'nor is it beside .* the folder that holds their_heads$'):
        load_config(str(config))


def test_what_a_module_lacks(tmp_path):
    config = tmp_path / 'a.py'
    config.write_text(f'{TEXT}from math import nothing')
    with pytest.raises(UsageError, match=r"a\.py: cannot import name 'nothing' from 'math'"):
        load_config(str(config))


def test_libraries_are_installed_not_found(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    config = tmp_path / 'a.py'
    config.write_text(f'{TEXT}import timm')
    with pytest.raises(ModuleNotFoundError) as caught:  # the tools say what to install
        load_config(str(config))
    assert caught.value.name == 'timm'
