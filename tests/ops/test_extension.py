"""The library of C++ kernels: building, finding and disabling it."""

import configparser
import re
import shutil
import subprocess
import sys

import pytest
import torch

from mmwave.ops import extension, gelu_, phase_mix, use_backend
from tests.contracts import ROOT, images


def test_a_missing_compiler_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/build_kernels.py'],
        capture_output=True,
        text=True,
        timeout=120,
        env={'TORCH_EXTENSIONS_DIR': str(tmp_path), 'PATH': str(tmp_path), 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stdout == ''
    assert re.fullmatch(
        r"error: no C\+\+ kernels could be built: there is no compiler 'c\+\+' on the PATH\. .*\n",
        done.stderr,
    )


@pytest.mark.skipif(shutil.which('c++') is None, reason='there is no compiler to fail')
def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    source = tmp_path / 'broken.cpp'
    source.write_text('this is no C++')
    extension._library.cache_clear()
    monkeypatch.setattr(extension, 'SOURCES', (source,))
    monkeypatch.setattr(extension, '_is_registered', lambda: False)
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    with pytest.raises(RuntimeError, match=r'no C\+\+ kernels could be built: .*broken'):
        extension.build()
    extension._library.cache_clear()


def test_checked_once_per_process(tmp_path):
    code = (
        'from mmwave.ops import extension\n'
        'print(extension.unavailable())\n'
        'extension.is_built = lambda: True\n'
        'print(extension.unavailable())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        env={'TORCH_EXTENSIONS_DIR': str(tmp_path), 'PATH': '/usr/bin:/bin'},
    )
    assert done.stdout.count('it is not built') == 2, done.stderr


@pytest.mark.parametrize('what', ['SOURCES', 'HEADERS', 'FLAGS'])
def test_another_library_for_other_sources(tmp_path, monkeypatch, what):
    before = extension._library.__wrapped__()
    more = tmp_path / 'more'
    more.write_text('// more')
    monkeypatch.setattr(extension, what, (*getattr(extension, what), more))
    assert extension._library.__wrapped__() != before


def test_all_sources_come_with_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    patterns = config['options.package_data']['mmwave'].split()
    packaged = {path for pattern in patterns for path in (ROOT / 'mmwave').glob(pattern)}
    assert extension.SOURCES
    assert extension.HEADERS
    assert packaged >= {*extension.SOURCES, *extension.HEADERS}


def test_disabled_and_enabled_again(kernels):
    maps = [images(1, 4, 5, 6).to(memory_format=torch.channels_last)] * 4
    inputs = (*maps, torch.ones(4, 2, 1, 7), torch.ones(4, 2, 7, 1))
    with_kernel = phase_mix(*inputs)
    with extension.without_kernels():
        assert 'not built' in extension.unavailable()
        without = phase_mix(*inputs)
    assert not extension.unavailable()
    for a, b in zip(with_kernel, without, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()


def test_enabled_again_after_an_error(kernels):
    with pytest.raises(KeyError), extension.without_kernels():
        raise KeyError
    assert not extension.unavailable()


def test_reasons_against_multiplying(kernels):
    x = images(4, 4).bfloat16()
    assert extension.cannot_multiply(x.float()) == 'it supports bfloat16 on the CPU'
    assert extension.cannot_multiply(x, x.to('meta')) == 'it supports bfloat16 on the CPU'
    assert 'inference only' in extension.cannot_multiply(x, x.clone().requires_grad_())
    seen = []
    torch.func.vmap(lambda row: seen.append(extension.cannot_multiply(row)) or row)(x)
    assert 'inference only' in seen[0]
    with extension.without_kernels():
        assert 'not built' in extension.cannot_multiply(x)
    extension._multiplies.cache_clear()
    assert bool(extension.cannot_multiply(x)) != torch.ops.mmwave_cpp.multiplies()


def test_requested_by_name(kernels):
    with (
        use_backend('cpp'),
        pytest.raises(RuntimeError, match='supports bfloat16'),
    ):
        gelu_(images(4, 4))
