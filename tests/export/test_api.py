"""A trained model to a file, run and compared before it is kept."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmwave.apis import UsageError, load_config
from mmwave.apis.building import build_model
from mmwave.cli.program import main
from mmwave.errors import UserError
from mmwave.export import LIMIT, DifferenceError, export_model, formats
from mmwave.export.api import export_module, in_form, trace, verify
from mmwave.export.formats import FORMATS
from mmwave.export.functions import function_of
from mmwave.export.images import Normalisation
from mmwave.export.sizes import FreeUpsample
from tests.contracts import build, images, randomise_norms, relative_error
from tests.export.models import FREE, IMAGES, Upsample, classifier
from tests.families import FAMILIES
from tests.faults.tasks import write_task

NORM = Normalisation((127.0,) * 3, (60.0,) * 3, 'bgr')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Makes a config and a checkpoint of a task; returns their paths and the model."""
    made = {}

    def make(task):
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            config = str(write_task(folder, task))
            torch.manual_seed(0)
            model = build_model(load_config(config)).eval()
            randomise_norms(model)
            meta = dict(dataset_meta=dict(classes=['one', 'two', 'three']))
            torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'weights.pth')
            made[task] = config, str(folder / 'weights.pth'), model
        return made[task]

    return make


@pytest.mark.export
@pytest.mark.parametrize(
    ('task', 'suffix'),
    [
        pytest.param('classification', '.onnx', marks=pytest.mark.slow),
        ('segmentation', '.pt2'),
        pytest.param('detection', '.onnx', marks=pytest.mark.slow),
        pytest.param('segmentation', '.xml', marks=pytest.mark.slow),
    ],
)
def test_a_trained_model_of_each_task_for_any_size(trained, tmp_path, task, suffix):
    config, checkpoint, model = trained(task)
    path = tmp_path / f'my{suffix}'
    done = export_model(config, checkpoint, str(path))
    assert done.files[0] == path
    assert sorted(tmp_path.iterdir()) == sorted(done.files)
    assert done.runtime == FORMATS[suffix].runtime
    assert done.folded  # a Wave-MLP has a deploy form
    for axes in (0, slice(2, None)):
        assert len({row.shape[axes] for row in done.comparisons}) == 2
    assert all(0 < row.relative < LIMIT / 10 for row in done.comparisons)
    assert done.metadata['task'] == task
    assert done.metadata['classes'] == '["one", "two", "three"]'
    assert (done.metadata['form'], done.metadata['config']) == ('deploy', 'tiny')
    x = images(2, 3, 96, 160)
    names = done.metadata['outputs']
    function = function_of(model)
    with torch.no_grad():
        wanted = dict(zip(function.describe(x).outputs, function(x), strict=True))
    got = FORMATS[suffix].load(path, list(wanted))(x)
    for name, right in wanted.items():
        assert name in names
        assert relative_error(torch.from_numpy(got[name]), right) < 1e-5


@pytest.mark.export
def test_a_fixed_size_of_the_train_form(trained, tmp_path):
    config, checkpoint, _ = trained('classification')
    path = str(tmp_path / 'my.pt2')
    done = export_model(config, checkpoint, path, fixed=(64, 96), batch=2, deploy=False)
    assert [row.shape for row in done.comparisons] == [(2, 3, 64, 96)]
    assert not done.folded
    assert done.metadata['form'] == 'train'
    assert (done.metadata['sizes'], done.metadata['batch']) == ('64x96', '2')
    with pytest.raises((AssertionError, RuntimeError), match='Guard failed'):
        FORMATS['.pt2'].load(done.files[0], ['logits'])(images(2, 3, 96, 96))


# A layer that the example's size is baked into, at the size that it was traced with and at others.
class Baked(nn.Module):
    def forward(self, x):
        return x * (float(int(x.shape[2] * 1.0)) / 17)


def exported(model, path, **options):
    return export_module(model, path, FREE, IMAGES, deploy=None, notes={}, **options)


@pytest.mark.export
@pytest.mark.parametrize('suffix', ['.pt2', '.onnx'])
def test_a_size_that_a_layer_fixes_is_found_at_others(tmp_path, suffix):
    FORMATS[suffix].check_libraries()
    with pytest.raises((DifferenceError, UsageError)):
        exported(classifier(Baked()), tmp_path / f'my{suffix}')
    assert not list(tmp_path.iterdir())


@pytest.mark.export
@pytest.mark.parametrize('factor', [1 + 2 * LIMIT, 1 + 1e-3, 0.0, float('nan')])
def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch, factor):
    """By a thousandth, in a file that is otherwise right."""
    form = FORMATS['.pt2']

    def write(traced, path):
        with torch.no_grad():
            state = traced.program.state_dict
            for name in ('model.head.weight', 'model.head.bias'):
                state[name].mul_(factor)
        return form.write(traced, path)

    (tmp_path / 'my.pt2').write_text('old')
    monkeypatch.setitem(formats.FORMATS, '.pt2', formats.Format('torch', (), write, form.load))
    with pytest.raises(DifferenceError, match=r'nothing was written$'):
        exported(classifier(), tmp_path / 'my.pt2')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['old']
    monkeypatch.undo()
    done = exported(classifier(), tmp_path / 'my.pt2')
    assert (tmp_path / 'my.pt2').stat().st_size > 1000
    assert len(done.comparisons) == len(FREE.tried)


@pytest.mark.export
def test_a_wrong_weight_of_an_onnx_file_is_found(tmp_path):
    import onnx

    model = classifier()
    traced = trace(function_of(classifier()), FREE, NORM, {})
    (path,) = FORMATS['.onnx'].write(traced, tmp_path / 'my.onnx')

    def check():
        return verify(FORMATS['.onnx'], path, function_of(model), traced, FREE, IMAGES, NORM)

    assert all(row.is_good for row in check())
    content = onnx.load(path)
    (weight,) = (w for w in content.graph.initializer if w.name.endswith('head.weight'))
    wrong = onnx.numpy_helper.to_array(weight) * np.float32(1 + 1e-3)
    weight.CopyFrom(onnx.numpy_helper.from_array(wrong, weight.name))
    onnx.save(content, path)
    with pytest.raises(DifferenceError, match=r'differs from the model by .* in onnxruntime'):
        check()


@pytest.mark.export
def test_sizes_of_upsampling_are_not_baked_in(tmp_path):
    done = exported(classifier(Upsample(2)), tmp_path / 'my.pt2')
    assert max(row.relative for row in done.comparisons) < 1e-5


@pytest.mark.export
def test_a_wrong_scale_ends_the_command_with_exit_code_one(trained, tmp_path, monkeypatch, capsys):
    config, checkpoint, _ = trained('segmentation')

    def wrong(self, x):
        size = (x.shape[2] * self.scale, x.shape[3] * self.scale)
        return 1.01 * nn.functional.interpolate(x, size, mode=self.mode)

    monkeypatch.setattr(FreeUpsample, 'forward', wrong)
    monkeypatch.setattr(sys, 'argv', ['mmwave', 'export', config, checkpoint, f'{tmp_path}/my.pt2'])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: the file differs from the model by ')
    assert not list(tmp_path.iterdir())


@pytest.mark.export
def test_the_command_prints_both_errors(trained, tmp_path, monkeypatch, capsys):
    config, checkpoint, _ = trained('classification')
    arguments = ['export', config, checkpoint, f'{tmp_path}/my.pt2', '--fixed', '64x96']
    monkeypatch.setattr(sys, 'argv', ['mmwave', *arguments, '--batch', '2', '--no-deploy'])
    main()
    said = capsys.readouterr().out
    assert '2 of 64 x 96: largest difference ' in said
    assert 'of the largest magnitude' in said
    assert 'images of the test data' in said
    assert f'wrote {tmp_path}/my.pt2' in said


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['my.pth'], r'my\.pth must end in one of \.onnx'),
        (['no/such/../my.onnx', '--fixed', '5'], r'--fixed 5: expected HxW'),
        (['my.pt2', '--fixed', '16x16'], r'image of 16 x 16 pixels .* too small'),
        (['my.pt2', '--batch', '2'], r'--batch 2: only a file of --fixed size'),
        (['my.pt2', '--images', 'nowhere'], r'--images .*nowhere.*: no such folder'),
        (['my.pt2', '--cfg-options', 'model.bakbone=1'], r'model\.bakbone: no such setting'),
    ],
)
def test_wrong_calls_are_one_line(trained, tmp_path, monkeypatch, capsys, arguments, line):
    config, checkpoint, _ = trained('classification')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['mmwave', 'export', config, checkpoint, *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(f'error: {line}', said)
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def test_checkpoints_that_do_not_fit(trained, tmp_path):
    config, checkpoint, model = trained('classification')
    out = str(tmp_path / 'my.pt2')
    with pytest.raises(UsageError, match='no such checkpoint'):
        export_model(config, f'{checkpoint}x', out)
    state = dict(model.state_dict())
    state.pop('head.fc.weight')
    torch.save(dict(state_dict=state), tmp_path / 'less.pth')
    with pytest.raises(UserError, match=r'head\.fc\.weight'):
        export_model(config, str(tmp_path / 'less.pth'), out)
    assert not (tmp_path / 'my.pt2').exists()


def test_what_is_deployed():
    backbone = build('WaveMLP', FAMILIES['WaveMLP'].tiny).eval()
    assert in_form(backbone, False)[1] == ()
    new, folded = in_form(backbone, None)
    assert folded
    assert new.deploy
    assert not backbone.deploy
    assert in_form(new, None)[1] == ()
    assert in_form(classifier(), None)[1] == ()
    with pytest.raises(UserError):
        in_form(classifier(), True)
