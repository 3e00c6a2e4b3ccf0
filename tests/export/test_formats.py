"""File formats: what is written, read back by the runtimes themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmwave.apis import UsageError
from mmwave.errors import UserError
from mmwave.export import formats
from mmwave.export.api import trace
from mmwave.export.formats import FORMATS, format_of, keep
from mmwave.export.functions import function_of
from mmwave.export.images import Normalisation
from tests.contracts import ROOT, images
from tests.export.models import FREE, classifier

# In a process of its own: modules stay imported. A socket that is opened ends it.
WITHOUT_TELEMETRY = """
import socket, sys

def refuse(*arguments, **options):
    raise SystemExit('a socket was opened')

socket.socket.connect = socket.create_connection = refuse
from mmwave.export.formats import FORMATS
FORMATS['.xml'].check_libraries()
assert 'openvino' in sys.modules
names = [name for name in sys.modules if name.startswith('openvino_telemetry')]
import openvino.tools.ovc.telemetry_utils as used
print(names, used.tm.__name__)
"""


@pytest.fixture(scope='module')
def traced():
    model = classifier()
    norm = Normalisation((1.0,) * 3, (2.0,) * 3, 'rgb')
    return trace(function_of(model), FREE, norm, {'classes': ['Käfer', 'b']})


@pytest.mark.export
@pytest.mark.parametrize('suffix', FORMATS)
def test_files_compute_the_same_at_any_size_and_hold_the_metadata(traced, tmp_path, suffix):
    form = FORMATS[suffix]
    form.check_libraries()
    files = form.write(traced, tmp_path / f'model{suffix}')
    assert files[0] == tmp_path / f'model{suffix}'
    assert all(file.stat().st_size for file in files)
    run, model = form.load(files[0], traced.outputs), classifier()
    for shape in ((1, 3, 64, 33), (5, 3, 20, 21)):
        x = images(*shape)
        with torch.no_grad():
            wanted = model(x, mode='tensor').numpy()
        got = run(x)
        assert list(got) == ['logits']
        assert np.abs(got['logits'] - wanted).max() < 1e-5
    assert stored(files[0]) == traced.metadata
    assert json.loads(stored(files[0])['classes']) == ['Käfer', 'b']


def stored(path: Path) -> dict:
    """The metadata as a reader gets them."""
    if path.suffix == '.onnx':
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == '.pt2':
        extra = {formats.EXTRA_FILE: ''}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra[formats.EXTRA_FILE])
    from openvino import Core

    return Core().read_model(path).get_rt_info(['mmwave']).value


@pytest.mark.export
def test_axes_of_an_onnx_file_have_names(traced, tmp_path):
    import onnx

    (path,) = FORMATS['.onnx'].write(traced, tmp_path / 'model.onnx')
    model = onnx.load(path)
    onnx.checker.check_model(model)
    names = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert names == [['batch', 3, 'height', 'width'], ['batch', 5]]
    assert [v.name for v in model.graph.input] == [formats.INPUT]


def test_openvino_is_imported_without_its_telemetry():
    pytest.importorskip('openvino_telemetry')
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TELEMETRY], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == ['[]', 'openvino.tools.ovc.telemetry_stub'], done.stderr


def test_suffixes():
    for suffix, form in FORMATS.items():
        assert format_of(Path(f'a.b{suffix}')) is form
    for name in ('model', 'model.pth', 'model.ONNX', 'model.bin'):
        with pytest.raises(UsageError, match=rf'^{name} must end in one of \.onnx .*\.xml'):
            format_of(Path(name))


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(UsageError, match=r"^onnxscript is not installed: .*\[export\]'$"):
        FORMATS['.onnx'].check_libraries()


def test_files_are_kept_whole_or_not_at_all(tmp_path):
    made, wanted = tmp_path / 'made', tmp_path / 'wanted'
    made.mkdir()
    wanted.mkdir()
    parts = [made / 'x.xml', made / 'x.bin']
    for part in parts:
        part.write_text(part.suffix)
    kept = keep(parts, wanted / 'my.xml')
    assert kept == [wanted / 'my.xml', wanted / 'my.bin']
    assert [path.read_text() for path in kept] == ['.xml', '.bin']
    parts[1].unlink()
    parts[0].write_text('new')
    with pytest.raises((OSError, UserError)):
        keep(parts, wanted / 'my.xml')
    assert [path.read_text() for path in kept] == ['.xml', '.bin']
    assert sorted(wanted.iterdir()) == sorted(kept)
