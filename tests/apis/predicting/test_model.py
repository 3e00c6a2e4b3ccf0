"""A loaded model predicts what a test of the same weights predicts."""

import os
import subprocess
import sys

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from PIL import Image

import mmwave
from mmwave import apis
from mmwave.apis import UsageError, deploy_checkpoint, load, prepare_testing
from mmwave.apis.predicting.reading import UnreadableError
from mmwave.checkpoint import MissingFileError
from mmwave.deploy import to_deploy
from mmwave.errors import UserError

TASKS = ('classification', 'detection', 'instances', 'segmentation')
VIEWS = ('classification', 'detection', 'segmentation')  # masks are not merged


def loaded(task, **options):
    return load(task.config, task.weights, device='cpu', cfg_options=task.options, **options)


def evaluated(task, name, **options):
    """Data samples of a test as plain dicts, by path."""
    out = task.folder / f'{name}.pkl'
    cfg = prepare_testing(
        task.config,
        task.weights,
        work_dir=str(task.folder / 'work'),
        out=str(out),
        cfg_options=task.options,
        **options,
    )
    apis.test(cfg)
    return {sample['img_path']: sample for sample in mmengine.load(out)}


def numbers(sample):
    """All that was predicted: name -> array, in the form of a data sample or of a test's dict."""
    found = sample if isinstance(sample, dict) else sample.to_dict()
    if 'pred_score' in found:
        return {k: found[k].numpy() for k in ('pred_score', 'pred_label')}
    if 'pred_sem_seg' in found:
        return {k: found[k]['data'].numpy() for k in ('pred_sem_seg', 'seg_logits') if k in found}
    found = found['pred_instances']
    arrays = {k: found[k].numpy() for k in ('bboxes', 'scores', 'labels')}
    if 'masks' in found:
        masks = found['masks']
        if isinstance(masks, list):  # a test encodes them
            from pycocotools import mask as coco_mask

            masks = np.stack([coco_mask.decode(mask) for mask in masks])
        arrays['masks'] = np.asarray(masks).astype(bool)
    return arrays


def same(found, wanted, tolerance=0.0):
    found, wanted = numbers(found), numbers(wanted)
    assert found.keys() == wanted.keys()
    assert all(array.size for array in found.values())
    return all(
        found[k].shape == wanted[k].shape
        and np.allclose(found[k], wanted[k], rtol=0, atol=tolerance)
        for k in found
    )


@pytest.fixture(scope='module', params=TASKS)
def task(request, tiny):
    return tiny(request.param)


def test_all_numbers_are_those_of_a_test(task):
    wanted = evaluated(task, 'plain')
    pictures = [path for path in task.pictures if path in wanted] or list(wanted)
    # In a test's batches.
    found = loaded(task)(pictures, batch=Config.fromfile(task.config).test_dataloader.batch_size)
    assert len(found) == len(pictures) > 2
    assert all(same(f, wanted[path]) for f, path in zip(found, pictures, strict=True))
    assert not same(found[0], wanted[pictures[1]])


@pytest.mark.parametrize('name', VIEWS)
def test_merged_views_are_those_of_a_test(tiny, name):
    task = tiny(name)
    wanted = evaluated(task, 'views', tta=True)
    pictures = list(wanted)[:2]
    found = loaded(task, tta=True)(pictures, batch=2)
    assert all(same(f, wanted[path]) for f, path in zip(found, pictures, strict=True))
    assert not same(loaded(task)(pictures[:1])[0], wanted[pictures[0]])


def test_a_merged_label_is_that_of_the_merged_scores(tiny):
    model = loaded(tiny('classification'), tta=True)
    views = [
        DataSample().set_pred_score(torch.tensor(scores)).set_pred_label(label)
        for scores, label in (([0.6, 0.4], 0), ([0.1, 0.9], 1))
    ]
    (merged,) = model.module.merge_preds([views])
    assert merged.pred_label.tolist() == [1]


def test_what_a_model_says_of_itself(task):
    model = loaded(task)
    assert model.task == {'instances': 'detection'}.get(task.name, task.name)
    assert model.classes == (('a', 'b', 'c') if task.name == 'segmentation' else ('a', 'b'))
    assert len(model.palette) == len(model.classes)
    assert model.device == torch.device('cpu')
    assert not model.module.training


def test_pictures_in_memory_and_one_alone(task):
    model, path = loaded(task), task.pictures[0]
    (wanted,) = model(path)
    image = cv2.imread(path)
    for picture in (image, [image], Image.open(path), iter([image])):
        (found,) = model(picture)
        assert same(found, wanted)
    assert model([]) == []


def test_sizes_may_differ_in_a_batch(task):
    """Boxes and scores of a picture that was padded are close; other tasks compute it alone."""
    model = loaded(task)
    image = cv2.imread(task.pictures[0])
    images = [image, image[:40], image[:, :50], image]
    together = model(images, batch=4)
    apart = [model(one)[0] for one in images]
    assert [len(numbers(one)) for one in together] == [len(numbers(one)) for one in apart]
    if model.task == 'detection':
        assert all(one.pred_instances.bboxes.isfinite().all() for one in together)
        limits = torch.tensor([50.0, 64, 50, 64])
        assert (together[2].pred_instances.bboxes <= limits + 1e-3).all()
    else:
        assert all(same(*pair, 1e-5) for pair in zip(together, apart, strict=True))


def test_small_pictures_are_padded(task):
    model = loaded(task)
    tiny = np.random.default_rng(0).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    # Detectors enlarge them first.
    (found,) = model(tiny)
    if model.task == 'segmentation':
        assert found.pred_sem_seg.shape == (9, 14)
    assert bool(model.padded) == (model.task != 'detection')


def test_mixed_precision(task):
    exact, rough = (loaded(task, amp=amp)(task.pictures[:1])[0] for amp in (False, True))
    if task.name == 'classification':
        difference = (exact.pred_score - rough.pred_score.float()).abs().max()
        assert 0 < difference < 0.1
    elif task.name == 'segmentation':
        assert not torch.equal(exact.seg_logits.data, rough.seg_logits.data.float())
    else:
        assert len(rough.pred_instances)
        found = rough.pred_instances
        assert found.bboxes.dtype == found.scores.dtype == torch.float32
        assert not same(exact, rough)
        # In bfloat16 they would be.
        assert not torch.equal(found.bboxes, found.bboxes.bfloat16().float())


def test_the_deploy_form_computes_the_same(task, tmp_path):
    path = task.pictures[0]
    plain, deployed = loaded(task), loaded(task, deploy=True)
    assert deployed.module.backbone.deploy
    assert not plain.module.backbone.deploy
    if task.name == 'segmentation':
        pair = [model(path)[0].seg_logits.data for model in (plain, deployed)]
        assert torch.allclose(*pair, rtol=1e-3, atol=1e-3)
    if task.name == 'classification':
        assert same(plain(path)[0], deployed(path)[0], 1e-5)
    # A file in deploy form is for a config that builds it.
    file = str(tmp_path / 'deployed.pth')
    deploy_checkpoint(task.config, task.weights, file)
    with pytest.raises(UserError, match='in deploy form'):
        load(task.config, file, device='cpu')
    options = {'model.backbone.deploy': True, **task.options}
    again = load(task.config, file, device='cpu', cfg_options=options)
    assert same(again(path)[0], deployed(path)[0], 1e-4)
    with pytest.raises(UserError, match='--deploy: in deploy form already'):
        load(task.config, file, device='cpu', deploy=True, cfg_options=options)


def test_a_deploy_form_of_merged_views(tiny):
    task = tiny('classification')
    model = loaded(task, tta=True, deploy=True)
    assert model.module.module.backbone.deploy
    wanted = loaded(task, tta=True)(task.pictures[:1])
    assert same(model(task.pictures[:1])[0], wanted[0], 1e-5)


def test_a_model_without_a_deploy_form(tiny, monkeypatch):
    def refuse(model):
        return to_deploy(torch.nn.Linear(1, 1))

    monkeypatch.setattr('mmwave.apis.predicting.model.to_deploy', refuse)
    with pytest.raises(UserError, match='--deploy: Linear has no part with a deploy form'):
        loaded(tiny('classification'), deploy=True)


def test_weights_of_another_model(tiny):
    one, other = tiny('classification'), tiny('detection')
    message = r'(?s)loaded \d+ of \d+ tensors from .* not in it.*must match'
    with pytest.raises(UserError, match=message):
        load(other.config, one.weights, device='cpu')


@pytest.mark.parametrize('name', ['detection', 'segmentation'])
def test_a_single_missing_tensor(tiny, tmp_path, name):
    task = tiny(name)
    state = torch.load(task.weights)['state_dict']
    gone = next(key for key in state if 'head' in key)
    torch.save(dict(state_dict={k: v for k, v in state.items() if k != gone}), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf'1 not in it, left as they were: {gone}'):
        load(task.config, str(tmp_path / 'a.pth'), device='cpu')


def test_more_tensors_than_the_model_has_and_nan(tiny, tmp_path):
    task = tiny('classification')
    state = torch.load(task.weights)['state_dict']
    state |= {'extra.weight': torch.ones(3)}
    name = next(key for key in state if key.endswith('bias'))
    state[name] = torch.full_like(state[name], float('nan'))
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    lines = load(task.config, str(tmp_path / 'a.pth'), device='cpu').warnings
    assert any('1 tensors of' in line and 'extra.weight' in line for line in lines)
    assert any('NaN' in line for line in lines)


class Code:
    """Make a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_checkpoint_that_runs_code(tiny, tmp_path):
    task = tiny('classification')
    content = torch.load(task.weights)
    torch.save({**content, 'note': Code(tmp_path / 'ran')}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='trust'):
        load(task.config, str(tmp_path / 'a.pth'), device='cpu')
    assert not (tmp_path / 'ran').exists()
    load(task.config, str(tmp_path / 'a.pth'), device='cpu', trust_checkpoint=True)
    assert (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('options', 'kind', 'message'),
    [
        (dict(device='gpu'), UsageError, "device 'gpu': expected 'cpu', 'cuda' or 'cuda:N'"),
        (dict(device='cuda:99'), UsageError, 'device cuda:99: this machine shows'),
        (dict(device='meta'), UsageError, 'device meta computes nothing'),
        (dict(checkpoint='nothing.pth'), MissingFileError, r'no checkpoint file .*nothing\.pth'),
        (dict(checkpoint=''), UserError, 'the path of the checkpoint is empty'),
        (dict(config='nothing'), UsageError, 'no such config: nothing'),
        (dict(cfg_options=dict(default_scope='mmagic')), UsageError, "is 'mmagic': expected one"),
        (dict(cfg_options=dict(model=None)), UsageError, 'has no model'),
        (
            {'cfg_options': {'test_dataloader.dataset.pipeline': []}},
            UsageError,
            r'has no test_dataloader\.dataset\.pipeline',
        ),
        (dict(cfg_options=dict(test_dataloader=None)), UsageError, 'has no test_dataloader'),
    ],
)
def test_wrong_calls(tiny, options, kind, message):
    task = tiny('classification')
    call = {'config': task.config, 'checkpoint': task.weights, 'device': 'cpu', **options}
    with pytest.raises(kind, match=message):
        load(call.pop('config'), call.pop('checkpoint'), **call)


def test_masks_are_not_merged(tiny):
    with pytest.raises(UsageError, match='merges boxes only'):
        loaded(tiny('instances'), tta=True)


def test_a_model_of_another_kind_of_results(task, monkeypatch):
    """Panoptic maps, depth or features, for example."""
    model = loaded(task)
    step = model.module.test_step

    def empty(data):
        return [type(sample)() for sample in step(data)]

    monkeypatch.setattr(model.module, 'test_step', empty)
    with pytest.raises(UserError, match=rf'predicts no pred_\w+, as models of {model.task} do'):
        model(task.pictures[:1])


def test_what_is_no_picture(tiny, tmp_path):
    model = loaded(tiny('classification'))
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(UnreadableError, match=r'a\.png cannot be read: empty'):
        model(tmp_path / 'a.png')
    with pytest.raises(UserError, match='not a int'):
        model([3])
    with pytest.raises(UserError, match='batch=0'):
        model([], batch=0)


def test_the_name_in_the_package():
    assert mmwave.load is load
    assert 'load' in dir(mmwave)
    with pytest.raises(AttributeError, match="'mmwave' has no attribute 'nothing'"):
        mmwave.nothing  # noqa: B018
    code = (
        'import sys, mmwave; dir(mmwave); print({"torch", "numpy", "argparse"} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'set()\n', done.stderr
