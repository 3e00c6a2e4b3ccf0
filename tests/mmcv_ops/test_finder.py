"""The module mmcv._ext: who finds it, and what it says of ops that it lacks."""

import json
import os
import pickle
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import cv2
import mmcv.ops
import numpy as np
import pytest
import torch

import mmwave.mmcv_ops
from mmwave.errors import UserError
from mmwave.mmcv_ops import environment
from mmwave.mmcv_ops import torchvision_ops as stand_in
from tests.contracts import ROOT

MMCV = Path(mmcv.ops.__file__).parents[1]


def test_other_ops_are_there_and_say_that_they_are_missing():
    op = stand_in.ms_deform_attn_forward
    with pytest.raises(NotImplementedError) as caught:
        op(torch.zeros(1), im2col_step=64)
    message = str(caught.value)
    assert message.startswith(
        'ms_deform_attn_forward: this mmcv was installed without its compiled'
    )
    assert 'make env MMCV_OPS=1' in message
    assert 'docs/install.md' in message
    assert '\n' not in message
    assert isinstance(caught.value, UserError)
    assert repr(pickle.loads(pickle.dumps(op))) == repr(op)  # noqa: S301


def test_ops_are_called_as_compiled_code_is():
    def modes(tensor):
        return torch.is_grad_enabled(), torch.is_autocast_enabled('cpu')

    with torch.autocast('cpu', torch.bfloat16):
        assert modes(None) == (True, True)
        assert stand_in._kernel(modes)(tensor=torch.zeros(1)) == (False, False)


@pytest.mark.parametrize('name', ['__path__', '__wrapped__', '__deepcopy__', '_private'])
def test_the_module_has_no_names_that_python_asks_for(name):
    assert not hasattr(stand_in, name)


def test_importing_mmwave_again_adds_no_second_finder():
    import importlib

    importlib.reload(mmwave.mmcv_ops)
    finders = [f for f in sys.meta_path if getattr(f, 'stands_in_for', None)]
    assert len(finders) == 1
    # Whatever finds installed files comes first.
    assert sys.meta_path.index(finders[0]) > sys.meta_path.index(PathFinder)


@pytest.fixture(scope='module')
def without_ops(tmp_path_factory):
    """The environment of a process that has this mmcv without a compiled module."""
    folder = tmp_path_factory.mktemp('mmcv')
    (folder / 'mmcv').mkdir()
    for path in MMCV.iterdir():
        if not path.name.startswith(('_ext', '__pycache__')):
            (folder / 'mmcv' / path.name).symlink_to(path)
    return {**os.environ, 'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}', 'OMP_NUM_THREADS': '1'}


def python(*command, env, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_it_imports_nothing_heavy(without_ops):
    code = """
import sys
import mmwave.mmcv_ops
heavy = {'torch', 'torchvision', 'mmcv', 'mmengine', 'numpy'}
print(heavy & sys.modules.keys())
mmwave.mmcv_ops.check_environment('mmdet', 'mmseg', 'mmpretrain')
print(heavy & sys.modules.keys())
"""
    assert python('-c', code, env=without_ops) == 'set()\nset()\n'


def test_without_it_there_are_no_ops(without_ops):
    """That the other tests test something."""
    code = 'import importlib.util as u; import mmcv; print(u.find_spec("mmcv._ext"))'
    assert python('-c', code, env=without_ops) == 'None\n'


def test_too_late_an_import_is_told(without_ops):
    code = """
import warnings
import mmdet.structures.mask
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    import mmwave.mmcv_ops
print(*(w.message for w in caught))
"""
    assert python('-c', code, env=without_ops) == (
        'mmdet.structures.mask.structures was imported before mmwave, when there were no ops of '
        'mmcv: import mmwave first\n'
    )


@pytest.mark.skipif(not environment._has_compiled_ops(), reason='mmcv has no compiled ops')
def test_a_compiled_module_comes_first():
    code = """
import mmwave.mmcv_ops
from mmcv import _ext
print(mmwave.mmcv_ops.is_standing_in(), _ext.__file__.endswith('.so'))
"""
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    assert python('-c', code, env=env) == 'False True\n'


def test_module_behaves(without_ops):
    code = """
import copy, doctest, inspect, pickle
import mmwave.mmcv_ops
from mmcv import _ext
from mmcv.ops import get_compiler_version, get_compiling_cuda_version
from mmcv.utils import collect_env
from mmcv.utils.ext_loader import load_ext
assert mmwave.mmcv_ops.is_standing_in()
assert pickle.loads(pickle.dumps(_ext.nms)) is _ext.nms
assert inspect.getmodule(_ext.nms) is _ext and inspect.getsource(_ext).startswith('\"\"\"')
assert not hasattr(_ext, '__path__') and doctest.testmod(_ext).failed == 0
assert callable(copy.deepcopy(load_ext('_ext', ['three_nn_forward']).three_nn_forward))
assert 'torchvision' in collect_env()['MMCV Compiler']
print(get_compiler_version()); print(get_compiling_cuda_version())
mmwave.mmcv_ops.check_ops('cpu')
"""
    compiler, cuda = python('-c', code, env=without_ops).splitlines()
    assert compiler.startswith('none: torchvision ')
    assert cuda == 'not available' or float(cuda) > 10


ARCH = """dict(
    _delete_=True,
    depths=(1, 1, 1, 1),
    dims=(8, 16, 16, 16),
    windows=(16, 8, 4, 2),
    share_sets=(1, 2, 4, 8),
)"""
DETECTOR = f"""
_base_ = '{ROOT}/configs/repmlpnet/repmlpnet-t256_mask-rcnn_1x_coco.py'
custom_imports = dict(imports=['mmwave.mmcv_ops'])
model = dict(
    backbone=dict(init_cfg=None, arch={ARCH}),
    neck=dict(in_channels=[8, 16, 16, 16], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=2),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=2),
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=9)),
)
"""


def test_detectors_run(without_ops, tmp_path):
    (tmp_path / 'detector.py').write_text(DETECTOR)
    code = f"""
import mmwave.mmcv_ops
import mmdet, mmseg, mmpretrain, mmseg.models, mmpretrain.models
import torch
from mmengine.config import Config
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmwave.mmcv_ops.precision import keep_detection_ops_in_float32
from mmdet.testing import demo_mm_inputs
import mmwave.models
register_all_modules()
keep_detection_ops_in_float32()  # nothing to do
mask_rcnn = Config.fromfile('detector.py').model
retinanet = Config.fromfile('{ROOT}/configs/repmlpnet/repmlpnet-t256_retinanet_1x_coco.py').model
retinanet.backbone = dict(mask_rcnn.backbone, out_indices=(1, 2, 3))
retinanet.neck.update(in_channels=[16, 16, 16], out_channels=16)
retinanet.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=2)
retinanet.test_cfg.score_thr = 0.0
torch.manual_seed(0)
for cfg, dtype in ((mask_rcnn, None), (mask_rcnn, torch.bfloat16), (retinanet, torch.bfloat16)):
    model = MODELS.build(cfg).train()
    batch = demo_mm_inputs(2, [[3, 64, 64], [3, 64, 96]], num_classes=2, with_mask=True)
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        with torch.no_grad():
            model.eval()
            results = model(**model.data_preprocessor(batch, False), mode='predict')
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite() and len(grads) > 9 and all(g.isfinite().all() for g in grads)
    print(cfg.type, [len(r.pred_instances) > 0 for r in results])
"""
    lines = python('-c', code, env=without_ops, cwd=tmp_path).splitlines()
    found = [line for line in lines if line.endswith('[True, True]')]
    assert [line.split()[0] for line in found] == ['MaskRCNN', 'MaskRCNN', 'RetinaNet']


def test_spawned_workers_have_the_ops(without_ops, tmp_path):
    (tmp_path / 'main.py').write_text("""
import mmwave.mmcv_ops
import torch
from torch.utils.data import DataLoader, Dataset

class Boxes(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        from mmcv.ops import nms
        return nms(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([0.5, 0.9]), 0.5)[1]

if __name__ == '__main__':
    print([x.tolist() for x in DataLoader(Boxes(), num_workers=1, multiprocessing_context='spawn')])
""")
    assert python('main.py', env=without_ops, cwd=tmp_path) == '[[[1]], [[1]]]\n'


@pytest.mark.long
def test_custom_imports_suffice_for_mmdets_own_tool(without_ops, tmp_path):
    """Its train.py imports mmdet before it reads the config, but no part of it that calls ops."""
    images, annotations = [], []
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((64, 64, 3), 100 * i, np.uint8))
        images.append(dict(id=i, file_name=f'{i}.png', width=64, height=64))
        outline = [8, 8, 48, 8, 48, 48, 8, 48]
        annotations.append(
            dict(id=i + 1, image_id=i, category_id=1, bbox=[8, 8, 40, 40], area=1600, iscrowd=0)
            | dict(segmentation=[outline])
        )
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=1, name='box'), dict(id=2, name='ball')],
    )
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    (tmp_path / 'detector.py').write_text(
        DETECTOR
        + f"""
data = dict(metainfo=dict(classes=('box', 'ball')), data_root='{tmp_path}/', ann_file='boxes.json')
data.update(data_prefix=dict(img=''))
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(ann_file='{tmp_path}/boxes.json')
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)
"""
    )
    import mmdet

    tool = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    python(tool, 'detector.py', '--work-dir', 'work', env=without_ops, cwd=tmp_path)
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'loss_mask' in log
    assert 'coco/segm_mAP' in log
