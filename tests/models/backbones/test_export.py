"""Graphs of torch.export that hold for images of one window and of several, in onnxruntime too."""

import pytest
import torch

from mmwave.deploy import to_deploy
from tests.contracts import build, images, randomise_norms, relative_error
from tests.families import FAMILIES

SIDE = 64  # of a window
SHAPES = ((1, 3, 64, 64), (2, 3, 40, 50), (1, 3, 64, 128), (2, 3, 130, 40), (1, 3, 128, 128))
WINDOWED = sorted(name for name, family in FAMILIES.items() if family.window_of_64)
slow = pytest.mark.slow

pytestmark = [
    pytest.mark.export,
    pytest.mark.parametrize('form', ['train', pytest.param('deploy', marks=slow)]),
    pytest.mark.parametrize('name', WINDOWED),
]


def model(name, form):
    made = build(name, {**FAMILIES[name].tiny, **FAMILIES[name].window_of_64}).eval()
    randomise_norms(made)
    return to_deploy(made)[0] if form == 'deploy' else made


def exported(made, windows):
    """The program of any size and number of images, traced with a part of so many windows."""
    size, free = (SIDE * n - 14 for n in windows), torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},)
    with torch.no_grad():
        return torch.export.export(made, (images(2, 3, *size),), dynamic_shapes=shapes)


@pytest.mark.parametrize(
    'windows',
    [(1, 1), pytest.param((1, 2), marks=slow), pytest.param((2, 2), marks=slow)],
    ids=str,
)
def test_a_graph_of_one_window_is_one_of_several(name, form, windows):
    made = model(name, form)
    graph = exported(made, windows).module()
    for shape in SHAPES:
        x = images(*shape)
        with torch.no_grad():
            for a, b in zip(graph(x), made(x), strict=True):
                assert relative_error(a, b) < 1e-5


@slow
def test_onnxruntime_runs_it(name, form, tmp_path):
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    made = model(name, form)
    path = tmp_path / 'model.onnx'
    torch.onnx.export(exported(made, (1, 1)), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for shape in SHAPES:
        x = images(*shape)
        with torch.no_grad():
            wanted = made(x)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for a, b in zip(got, wanted, strict=True):
            assert relative_error(torch.from_numpy(a), b) < 1e-5
