"""Whole models: both forms equal before they are timed, timed from image to predictions."""

import csv
import importlib.util
import re

import pytest
import torch
from torch import nn

from mmwave.errors import UserError
from mmwave.inspect.timing import Timing, machine
from mmwave.models import RepMLPNet
from speed import pipelines
from speed.cases import Measured, Result, Row
from speed.equality import Unequal
from speed.forms import Label
from speed.pipelines import TASKS, cases, run
from speed.report import WHOLE_COLUMNS, as_csv, shares, table, whole_layout, whole_records
from tests.contracts import ROOT

ARCH = """dict(
    _delete_=True,
    depths=(1, 1, 1, 1),
    dims=(8, 16, 16, 16),
    windows=(16, 8, 4, 2),
    share_sets=(1, 2, 4, 8),
)"""
CONFIGS = {
    'retinanet': f"""
_base_ = '{ROOT}/configs/repmlpnet/repmlpnet-t256_retinanet_1x_coco.py'
model = dict(
    backbone=dict(arch={ARCH}),
    neck=dict(in_channels=[16, 16, 16], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=5),
)
""",
    'mask-rcnn': f"""
_base_ = '{ROOT}/configs/repmlpnet/repmlpnet-t256_mask-rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch={ARCH}),
    neck=dict(in_channels=[8, 16, 16, 16], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=5),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=5),
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=9)),
)
""",
    'upernet': f"""
_base_ = '{ROOT}/configs/repmlpnet/repmlpnet-d256_upernet_80k_cityscapes-512x1024.py'
model = dict(
    backbone=dict(arch={ARCH}),
    decode_head=dict(in_channels=[8, 16, 16, 16], channels=16),
    auxiliary_head=dict(in_channels=16, channels=8),
)
""",
}
CLASSIFIER = str(ROOT / 'configs/repmlpnet/repmlpnet-t256_in1k.py')
RUNTIME = str(ROOT / 'configs/_base_/runtime/mmdet.py')
LEAF = str(ROOT / 'configs/repmlpnet/repmlpnet-t256_retinanet_1x_coco.py')
SIZE = (70, 100)


@pytest.fixture
def config(tmp_path):
    """Writes a small model's config, with more text behind it; returns its path."""

    def write(name, more=''):
        path = tmp_path / f'{name}.py'
        path.write_text(CONFIGS[name] + more)
        return str(path)

    return write


def only(path, dtype='float32', size=SIZE, **options):
    (case,) = cases([path], sizes=[size], dtypes=[dtype], cfg_options=options)
    return case


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_result(config, name, dtype):
    result = run(only(config(name), dtype), repeats=3)
    whole, _ = result.rows
    for row in result.rows:
        assert [x.label.name for x in (row.reference, row.form)] == ['train form', 'deploy']
        assert len(row.reference.time.wall) == len(row.form.time.wall) == 3
    for share in shares(result):
        assert 0 < share < 1
    eps = torch.finfo(getattr(torch, dtype)).eps
    for error in (whole.form.error, whole.reference.error):
        # What float32 may have is below what bfloat16 may.
        assert eps / 32 < error < 512 * eps
    assert whole.form.error != whole.reference.error
    # As many as test_cfg allows, which random scores fill.
    assert result.boxes == {'retinanet': 100, 'mask-rcnn': 9, 'upernet': None}[name]


@pytest.mark.parametrize(('name', 'dtype'), [('retinanet', 'bfloat16'), ('upernet', 'float32')])
def test_what_takes_turns(config, monkeypatch, name, dtype):
    """Both forms from image to predictions, and their backbones on what they are given there.

    All in the dtype that was asked for and without autograd.
    """
    seen, found = [], {}
    forward = RepMLPNet.forward

    def watched(self, x):
        outputs = forward(self, x)
        seen.append((self.deploy, x, outputs[0].dtype, torch.is_grad_enabled()))
        return outputs

    def pretend(steps, *, repeats, device):
        assert (repeats, device) == (4, 'cpu')
        seen.clear()
        found.update({name: step() for name, step in steps.items()})
        return {name: Timing((1.0,) * repeats, (1.0,) * repeats) for name in steps}

    monkeypatch.setattr(RepMLPNet, 'forward', watched)
    monkeypatch.setattr(pipelines, 'alternate', pretend)
    run(only(config(name), dtype), repeats=4)

    assert list(found) == ['train', 'deploy', 'train backbone', 'deploy backbone']
    assert [deploy for deploy, *_ in seen] == [False, True, False, True]
    for _, images, kind, grad in seen:
        # In testing, mmdet pads to steps of 32, and mmseg does not.
        assert images.shape == (1, 3, *((96, 128) if name == 'retinanet' else SIZE))
        assert images.equal(seen[0][1])
        assert kind == getattr(torch, dtype)
        assert not grad
    for form in ('train', 'deploy'):
        if name == 'retinanet':
            boxes = found[form].pred_instances.bboxes
            assert boxes.shape == (100, 4)
            # Of the image, not of the padded one.
            assert boxes[:, 0::2].max() <= SIZE[1]
            assert boxes[:, 1::2].max() <= SIZE[0]
        else:
            assert found[form].pred_sem_seg.data.shape == (1, *SIZE)
        assert [len(x) for x in found[f'{form} backbone']] == [1] * (3 + (name == 'upernet'))
    if name == 'upernet':
        train, deploy = (found[form].seg_logits.data for form in ('train', 'deploy'))
        torch.testing.assert_close(deploy, train, rtol=0, atol=1e-5 * train.abs().max().item())


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_nothing_is_timed_where_the_forms_differ(config, monkeypatch, name, dtype):
    right = RepMLPNet.deploy_form

    def wrong(self):
        twin, lines = right(self)
        with torch.no_grad():
            twin.stages[3][0].ffn.fc2.bias += 0.01 if dtype == 'float32' else 3
        return twin, lines

    monkeypatch.setattr(RepMLPNet, 'deploy_form', wrong)
    monkeypatch.setattr(pipelines, 'alternate', lambda *a, **k: pytest.fail('timed'))
    with pytest.raises(Unequal, match=rf'^{dtype} outputs .* is above'):
        run(only(config(name), dtype))


def test_weights_are_random_and_norms_drawn(config, monkeypatch):
    """No file is looked for, though the config names one; norms of heads are drawn as well."""
    case = only(config('upernet'))
    drawn, models = pipelines.randomise_norms, []

    def note(model):
        models.append(model)
        drawn(model)

    monkeypatch.setattr(pipelines, 'randomise_norms', note)
    run(case, repeats=2)
    (model,) = models
    assert model.backbone.init_cfg is None
    assert case.model.cfg.model.backbone.init_cfg.type == 'Pretrained'
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 20
    assert all(norm.running_var.std() > 0 for norm in norms if len(norm.running_var) > 1)
    assert not any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_cases_are_every_combination_with_the_size_of_the_task(config):
    paths = [config(name) for name in CONFIGS]
    made = cases(paths, dtypes=['float32', 'bfloat16'])
    assert [(c.model.name, c.size, c.dtype) for c in made] == [
        (name, TASKS['mmseg' if name == 'upernet' else 'mmdet'].size, dtype)
        for name in CONFIGS
        for dtype in ('float32', 'bfloat16')
    ]
    assert {c.size for c in made} == {(800, 1333), (512, 1024)}
    sizes = [(64, 96), (128, 64)]
    assert [c.size for c in cases(paths, sizes=sizes)] == sizes * len(CONFIGS)


def test_options_replace_settings(config):
    options = {'model.test_cfg.max_per_img': 7}
    assert run(only(config('retinanet'), **options), repeats=2).boxes == 7


def result(case, *, whole, backbone, boxes=3):
    """Return a result of given seconds: (train, deploy) each."""

    def measured(seconds, error):
        return Measured(
            label=Label(role='ours', name=''), time=Timing(seconds, seconds), error=error
        )

    rows = [
        Row(case=case, form=measured(deploy, 1e-7), reference=measured(train, 2e-7))
        for train, deploy in (whole, backbone)
    ]
    return Result(case=case, rows=tuple(rows), boxes=boxes)


def test_ratios_are_taken_round_by_round(config):
    made = result(
        only(config('upernet')),
        whole=((8.0, 2.0, 12.0), (4.0, 2.0, 4.0)),
        backbone=((2.0, 1.0, 9.0), (0.4, 1.0, 1.0)),
    )
    assert [row.ratio.median for row in made.rows] == [2, 5]
    assert shares(made) == (0.5, 0.25)


def test_table_and_records(config):
    case = only(config('retinanet'))
    made = [
        result(case, whole=((0.4,) * 2, (0.2,) * 2), backbone=((0.3,) * 2, (0.1,) * 2)),
        result(case, whole=((0.4,) * 2, (0.5,) * 2), backbone=((0.3,) * 2, (0.4,) * 2), boxes=None),
    ]
    layout = whole_layout([case.model.name])
    *legend, head, first, second = table(iter(made), lambda _: layout, repeats=2)
    assert legend[0].startswith('Medians of 2 rounds')
    assert 'thousands of boxes or none' in legend[0]
    assert head.split('  ')[0] == 'model'
    assert len(first) <= len(head)
    cells = '400.0 200.0 2.5 5 2.00 2.00 - 2.00 300.0 100.0 3.00 0.75 0.50 1.0e-07 2.0e-07 3'
    assert first.split() == ['retinanet', '70x100', 'float32', *cells.split()]
    # A loss is shown like a win.
    assert second.split()[7] == '0.80'
    at = head.index('boxes')
    assert (first[at:], second[at:]) == ('3', '')

    read = list(csv.DictReader(as_csv(whole_records(made, 'a machine, 2 cores')).splitlines()))
    assert [r['boxes'] for r in read] == ['3', '']
    wanted = {
        'model': 'retinanet',
        'kind': 'detector',
        'height': '70',
        'width': '100',
        'dtype': 'float32',
        'rounds': '2',
        'whole_speedup_median': '2.0',
        'whole_train_wall_median_s': '0.4',
        'whole_deploy_wall_median_s': '0.2',
        'backbone_train_cpu_median_s': '0.3',
        'backbone_deploy_wall_iqr_s': '0.0',
        'train_images_per_s': '2.5',
        'deploy_images_per_s': '5.0',
        'deploy_backbone_share': '0.5',
        'train_error': '2e-07',
        'deploy_error': '1e-07',
        'machine': 'a machine, 2 cores',
    }
    assert {key: read[0][key] for key in wanted} == wanted
    assert float(read[0]['train_backbone_share']) == pytest.approx(0.75)


def test_columns_are_as_wide_as_their_heads():
    assert all(len(title) <= width for title, width, _ in WHOLE_COLUMNS)


@pytest.fixture
def tool(root, capsys):
    """Call projects/speed/benchmark_models.py; return exit code, standard output and errors."""
    path = root / 'projects/speed/benchmark_models.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*options):
        capsys.readouterr()
        try:
            code = module.main(options)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def test_the_tool_prints_a_table_and_writes_a_file(tool, config, tmp_path):
    path = tmp_path / 'rows.csv'
    code, out, _ = tool(
        *(config('retinanet'), config('upernet'), '--size', '64x96', '96x64'),
        *('--dtype', 'float32', '--repeats', '2', '--csv', str(path)),
        *(
            '--cfg-options',
            'model.backbone.grid_mode=strict',
            'model.backbone.arch.windows=8,4,2,1',
        ),
    )
    assert code == 0
    assert out.startswith(f'{machine()}\n')
    lines = [line.split() for line in out.splitlines() if line.startswith(('retinanet', 'upernet'))]
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [r['model'] for r in rows] == ['retinanet'] * 2 + ['upernet'] * 2
    for line, r in zip(lines, rows, strict=True):
        assert line[:2] == [r['model'], f'{r["height"]}x{r["width"]}']
        assert line[3] == f'{1e3 * float(r["whole_train_wall_median_s"]):.1f}'
        assert (r['machine'], r['rounds']) == (machine(), '2')


def test_the_tool_goes_on_behind_a_model_that_fails(tool, config, tmp_path):
    """Each failure is one line; what could be measured is printed and written."""
    strict = config('upernet', "model['backbone']['grid_mode'] = 'strict'\n")
    resnet = tmp_path / 'resnet.py'
    resnet.write_text(f"""
_base_ = '{LEAF}'
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]),
)
""")
    path = tmp_path / 'rows.csv'
    code, out, err = tool(
        *(strict, str(resnet), config('retinanet')),
        *('--size', 'x'.join(map(str, SIZE)), '--repeats', '2', '--csv', str(path)),
    )
    assert code == 1
    first, second = [line for line in err.splitlines() if line.startswith('error')]
    assert re.match(r'error: upernet: .*70 x 100.*multiple of 64', first)
    assert second == ('error: resnet: RetinaNet has no part with a deploy form: nothing to fold')
    assert [r['model'] for r in csv.DictReader(path.read_text().splitlines())] == ['retinanet']
    assert out.splitlines()[-1].startswith('retinanet')


def test_the_tool_prints_no_row_where_forms_differ(tool, config, monkeypatch):
    right = RepMLPNet.deploy_form

    def wrong(self):
        twin, lines = right(self)
        twin.stem.conv.bias.data += 0.01
        return twin, lines

    monkeypatch.setattr(RepMLPNet, 'deploy_form', wrong)
    code, out, err = tool(config('upernet'), '--size', '64x64', '--repeats', '2')
    assert code == 1
    assert 'error: upernet: nothing is timed: float32 outputs of the deploy form' in err
    assert out == f'{machine()}\n'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'CONFIG'),
        (['none.py'], 'no such config: none.py'),
        ([LEAF, 'none.py'], 'no such config: none.py'),
        ([CLASSIFIER], r"repmlpnet-t256_in1k: default_scope is 'mmpretrain': .*mmdet.*mmseg"),
        ([RUNTIME], r'mmdet: the config has no model\.backbone'),
        ([LEAF, '--size', '800'], r"'800' is no HEIGHTxWIDTH"),
        ([LEAF, '--size', '800x'], r"'800x' is no HEIGHTxWIDTH"),
        ([LEAF, '--size', '0x64'], r'size 0x64: both sides must be at least 1'),
        ([LEAF, '--dtype', 'half'], r"'half' .*float32.*bfloat16"),
        ([LEAF, '--repeats', '1'], r'repeats=1 must be at least 2'),
        ([LEAF, '--repeats', 'two'], r"'two'"),
        ([LEAF, '--device', 'tpu'], r"'tpu' .*cpu.*cuda"),
        ([LEAF, '--csv', '/no/such/rows.csv'], r"no folder '/no/such'"),
        (
            [LEAF, '--cfg-options', 'model.backbone.arch=t'],
            r"repmlpnet-t256_retinanet_1x_coco: model.backbone: .*'t'.*t224",
        ),
    ],
)
def test_bad_use_ends_in_one_line(tool, options, message):
    code, _, err = tool(*options)
    assert code == 2
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert re.search(message, err)


@pytest.mark.skipif(torch.cuda.is_available(), reason='has a CUDA device')
def test_a_missing_gpu_is_one_line(tool):
    code, _, err = tool(LEAF, '--device', 'cuda')
    assert (code, err) == (2, 'error: no CUDA device here: use --device cpu\n')


def test_bad_values_are_refused(config):
    path = config('upernet')
    with pytest.raises(UserError, match="unknown dtype 'half': expected one of float32, bfloat16"):
        cases([path], dtypes=['half'])
    with pytest.raises(UserError, match='repeats=1 must be at least 2'):
        run(only(path), repeats=1)


def test_a_model_in_deploy_form_is_refused(config):
    case = only(config('upernet'), **{'model.backbone.deploy': True})
    with pytest.raises(UserError, match='upernet: in deploy form already: backbone'):
        run(case, repeats=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_segmentor_on_a_gpu(config, dtype):
    assert run(only(config('upernet'), dtype), repeats=3, device='cuda').rows[0].ratio.median > 0
