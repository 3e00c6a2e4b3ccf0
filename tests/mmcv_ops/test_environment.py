"""What is wrong with an installation is said in one line."""

import os
import sys
import types

import pytest
import torch

import mmwave.mmcv_ops
from mmwave.errors import UserError
from mmwave.mmcv_ops import check_environment, check_ops, environment
from mmwave.mmcv_ops import torchvision_ops as stand_in


@pytest.fixture
def installed(monkeypatch):
    """Sets which distributions there are, with their versions."""

    def install(**versions):
        names = {name.replace('_', '-'): version for name, version in versions.items()}
        monkeypatch.setattr(environment, '_version', names.get)
        monkeypatch.setattr(environment, '_folder', lambda name, module: folders.get(name, module))

    folders: dict[str, str] = {}
    install.folders = folders
    return install


HEALTHY = dict(onedl_mmengine='0.10.12', onedl_mmcv='2.3.6', onedl_mmdetection='3.5.1')


@pytest.mark.parametrize(
    ('others', 'message'),
    [
        (
            dict(mmcv='2.2.0'),
            r'onedl-mmcv 2\.3\.6 and mmcv 2\.2\.0 are installed together and overwrite each other: '
            r'uninstall mmcv, then install onedl-mmcv again \(pip uninstall -y mmcv; pip install '
            r'--force-reinstall --no-deps onedl-mmcv==2\.3\.6\)',
        ),
        (dict(mmcv_full='1.7.2', mmcv_lite='2.0'), 'uninstall mmcv-full and mmcv-lite, then'),
        (dict(mmengine='0.10.7'), r'onedl-mmengine 0\.10\.12 and mmengine 0\.10\.7'),
        (dict(mmdet='3.3.0'), r'onedl-mmdetection 3\.5\.1 and mmdet 3\.3\.0'),
        (dict(mmsegmentation='1', onedl_mmsegmentation='2'), 'uninstall mmsegmentation,'),
        (dict(mmpretrain='1', onedl_mmpretrain='2'), 'uninstall mmpretrain,'),
    ],
)
def test_two_distributions_of_one_module_are_refused(installed, others, message):
    installed(**HEALTHY, **others)
    with pytest.raises(UserError, match=message) as caught:
        check_environment('mmdet', 'mmseg', 'mmpretrain')
    assert '\n' not in str(caught.value)


def test_distributions_in_folders_of_their_own_do_not_overwrite_each_other(installed):
    installed(**HEALTHY, mmcv='2.2.0')
    installed.folders['mmcv'] = 'elsewhere'
    check_environment()


def test_libraries_that_are_not_used_are_not_judged(installed):
    installed(**HEALTHY, mmsegmentation='1', onedl_mmsegmentation='2')
    check_environment('mmdet')


def test_where_a_distribution_keeps_its_files():
    import mmcv

    assert environment._folder('onedl-mmcv', 'mmcv') == os.path.dirname(mmcv.__file__)


def test_a_healthy_environment_passes(installed):
    check_environment('mmdet', 'mmseg', 'mmpretrain')
    installed(**HEALTHY)
    check_environment()


@pytest.mark.parametrize(
    ('versions', 'missing', 'message'),
    [
        ({}, 'mmcv', r'^mmcv is not installed: install onedl-mmcv \('),
        (HEALTHY, 'mmcv', r'^onedl-mmcv is installed, but mmcv cannot be found: .*==2\.3\.6\)$'),
        ({'onedl_mmcv': '2.3.6'}, 'mmdet', '^mmdet is not installed: install onedl-mmdetection'),
    ],
)
def test_missing_modules_are_named(installed, monkeypatch, versions, missing, message):
    installed(**versions)
    monkeypatch.setattr(environment, '_has_compiled_ops', lambda: True)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=message):
        check_environment('mmdet')
    check_environment()


def test_leftovers_of_an_uninstalled_mmcv_are_no_mmcv(installed, monkeypatch, tmp_path):
    installed(**HEALTHY)
    (tmp_path / 'mmcv').mkdir()
    for name in [n for n in sys.modules if n.split('.')[0] == 'mmcv']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    with pytest.raises(UserError, match='onedl-mmcv is installed, but mmcv cannot be found'):
        check_environment('mmdet')


@pytest.mark.parametrize(
    ('torch_', 'vision', 'pin', 'message'),
    [
        (
            *('2.14.0+cpu', '0.28.0', 'torch (==2.13.0)'),
            r'^torchvision 0\.28\.0 does not work with torch 2\.14\.0\+cpu, but with torch '
            r"==2\.13\.0: install its own, .* \(pip install 'torch==2\.14\.0\+cpu' torchvision\)$",
        ),
        ('2.13.0', '0.27.0', 'torch==2.12.0', 'but with torch ==2.12.0: install its own'),
        ('2.13.0', '0.29.2', 'torch (>=2.14.0)', 'but with torch >=2.14.0: install its own'),
        ('2.13.0', None, '', r'^torchvision is missing, .*: install its own'),
        ('2.15.0', '0.29.2', 'torch (>=2.14.0)', None),
        ('2.13.0+cu130', '0.28.0', 'torch==2.13.0+cu130', None),
        ('2.15.0', '0.29.2', "torch (>=2.99) ; extra == 'new'", None),
        ('2.13.0+cu130', '0.28.0+cu130', 'torch (==2.13.0)', None),
        ('2.13.0', '0.28.0', 'torch (>=2.0)', None),
    ],
)
def test_a_torchvision_of_another_torch_is_refused(
    installed, monkeypatch, torch_, vision, pin, message
):
    installed(**HEALTHY, torch=torch_, torchvision=vision)
    monkeypatch.setattr('importlib.metadata.requires', lambda name: ['numpy', pin])
    monkeypatch.setattr(environment, '_has_compiled_ops', lambda: False)
    if message is None:
        check_environment('mmdet')
        return
    with pytest.raises(UserError, match=message):
        check_environment('mmdet')


def test_torchvision_that_does_not_register_its_ops(monkeypatch):
    monkeypatch.setattr(torch.ops, 'torchvision', types.SimpleNamespace(), raising=False)
    with pytest.raises(UserError, match=r'^torchvision .* with torch \S+ \(Attr') as e:
        environment.import_torchvision()
    assert '\n' not in str(e.value)


def test_torchvision_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(UserError, match=r'\(ModuleNotFoundError: .*install its own'):
        environment.import_torchvision()


def test_ops_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    with pytest.raises(UserError, match=r"^mmcv's ops cannot be imported \(ModuleNotFoundError: "):
        check_ops('cpu')


@pytest.mark.parametrize(
    ('standing_in', 'message'),
    [
        (False, 'this mmcv was built without CUDA ops'),
        (True, r'this torchvision \(\S+\) was built'),
    ],
)
def test_a_gpu_needs_cuda_ops(monkeypatch, standing_in, message):
    monkeypatch.setattr(mmwave.mmcv_ops, 'is_standing_in', lambda: standing_in)
    monkeypatch.setattr(environment, '_runs_on_gpus', lambda: False)
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(UserError, match=message):
        check_ops('cuda')
    check_ops('cpu')
    with monkeypatch.context() as rocm:
        rocm.setattr(environment, '_runs_on_gpus', lambda: True)
        if standing_in:
            check_ops('cuda')
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: '13.0')
    check_ops('cuda')


@pytest.mark.parametrize(
    ('number', 'version'), [(13000, '13.0'), (12060, '12.6'), (-1, 'not available')]
)
def test_cuda_version_of_torchvision(monkeypatch, number, version):
    monkeypatch.setattr(torch.ops.torchvision, '_cuda_version', lambda: number)
    assert stand_in.get_compiling_cuda_version() == version
