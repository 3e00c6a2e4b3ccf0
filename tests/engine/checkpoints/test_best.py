"""By which metric mmengine's hook chooses the best checkpoint, with the libraries' own metrics."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from mmwave.engine.checkpoints.best import choose_by_main_metric, main_metrics
from mmwave.errors import UserError

BOXES = [[4.0, 4.0, 12.0, 12.0], [16.0, 16.0, 28.0, 28.0]]  # x1, y1, x2, y2 in pixels


class Run:
    """What mmengine's hook sees of a run, whose checkpoints are names."""

    def __init__(self, folder, evaluators, epoch=0, info=None, **settings):
        self.work_dir = str(folder)
        Run.count = getattr(Run, 'count', 0) + 1
        self.message_hub = MessageHub(f'best{Run.count}')
        for name, value in (info or {}).items():
            self.message_hub.update_info(name, value)
        self.logged = []
        self.logger = SimpleNamespace(info=lambda _: None, warning=self.logged.append)
        self.val_loop = SimpleNamespace(evaluator=Evaluator(evaluators))
        self.epoch = self.iter = epoch
        self.hooks = [CheckpointHook(interval=1, **{'save_best': 'auto', **settings})]
        choose_by_main_metric(self)
        self.hooks[0].before_train(self)

    def save_checkpoint(self, folder, filename, *args, **kwargs):
        with open(f'{folder}/{filename}', 'w') as file:
            file.write('saved')

    def validate(self, metrics):
        """Return the best checkpoint's name after an epoch and its evaluation."""
        self.epoch += 1
        self.hooks[0].after_val_epoch(self, metrics)
        info = self.message_hub.runtime_info
        return info['best_ckpt'].rsplit('/')[-1] if 'best_ckpt' in info else None


class Metric:
    """An evaluator of somebody's own."""

    prefix = 'own'


def built(type_, library, **settings):
    init_default_scope(library)
    (metric,) = Evaluator([dict(type=f'{library}.{type_}', **settings)]).metrics
    return metric


def coco(folder, **settings):
    """Return a CocoMetric of one image with a box each of two classes."""
    truth = {
        'images': [{'id': 0, 'width': 32, 'height': 32, 'file_name': 'a.png'}],
        'annotations': [
            dict(
                id=i + 1,
                image_id=0,
                category_id=i,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]],
                area=(x2 - x1) * (y2 - y1),
                iscrowd=0,
            )
            for i, (x1, y1, x2, y2) in enumerate(BOXES)
        ],
        'categories': [{'id': 0, 'name': 'bbox_mAP_of_birds'}, {'id': 1, 'name': 'dog'}],
    }
    (folder / 'truth.json').write_text(json.dumps(truth))
    metric = built('CocoMetric', 'mmdet', ann_file=str(folder / 'truth.json'), **settings)
    metric.dataset_meta = {'classes': [c['name'] for c in truth['categories']]}
    return metric


def evaluated(metric, found):
    """Return what a CocoMetric gives where boxes of these indices are found."""
    sample = dict(
        img_id=0,
        ori_shape=(32, 32),
        pred_instances=dict(
            bboxes=torch.tensor([BOXES[i] for i in found]).reshape(-1, 4),
            scores=torch.ones(len(found)),
            labels=torch.tensor(found, dtype=torch.long),
        ),
    )
    metric.process({}, [sample])
    return metric.evaluate(1)


@pytest.mark.parametrize('prefix', [None, 'mine'])
def test_boxes_with_metrics_per_class(tmp_path, prefix):
    """The first class is found in epoch 1 alone, both in epoch 3: the first is no better there."""
    metric = coco(tmp_path, classwise=True, prefix=prefix)
    run = Run(tmp_path, [metric])
    first = evaluated(metric, [0])
    assert 'precision' in next(iter(first))  # what mmengine would take
    lead = f'best_{prefix or "coco"}_bbox_mAP'
    assert run.validate(first) == f'{lead}_epoch_1.pth'
    assert run.validate(evaluated(metric, [])) == f'{lead}_epoch_1.pth'
    assert run.validate(evaluated(metric, [0, 1])) == f'{lead}_epoch_3.pth'
    assert run.message_hub.get_info('best_score') == 1.0
    assert [path.name for path in tmp_path.glob('best_*')] == [f'{lead}_epoch_3.pth']


def test_an_evaluation_without_detections_beside_another(tmp_path):
    """It has metrics, and not the main one: before that is settled, and after."""
    metric = coco(tmp_path)
    run = Run(tmp_path, [metric, Metric()])
    assert evaluated(metric, []) == {}
    assert run.validate({'own/loss': 3.0}) is None
    assert run.validate({**evaluated(metric, [0]), 'own/loss': 2.0}).endswith('mAP_epoch_2.pth')
    assert run.validate({'own/loss': 1.0}).endswith('mAP_epoch_2.pth')
    assert len(run.logged) == 2
    assert all('no candidate for the best' in line for line in run.logged)


@pytest.mark.parametrize(
    ('settings', 'names', 'expected'),
    [
        (dict(metric=['segm', 'bbox']), ['a_precision', 'segm_mAP', 'bbox_mAP'], 'bbox_mAP'),
        (dict(metric='segm'), ['a_precision', 'segm_mAP'], 'segm_mAP'),
        (dict(metric_items=['mAP_75']), ['a_precision', 'bbox_mAP_75'], 'bbox_mAP_75'),
        (dict(metric='proposal'), ['AR@100', 'AR@300'], 'AR@100'),
    ],
)
def test_what_a_coco_metric_is_asked_for(tmp_path, settings, names, expected):
    run = Run(tmp_path, [coco(tmp_path, **settings)])
    best = run.validate({f'coco/{name}': 0.5 for name in names})
    assert best == f'best_coco_{expected}_epoch_1.pth'


@pytest.mark.parametrize(
    ('library', 'kind', 'settings', 'names', 'expected'),
    [
        ('mmdet', 'VOCMetric', {}, ['pascal_voc/AP50', 'pascal_voc/mAP'], 'pascal_voc/mAP'),
        ('mmseg', 'IoUMetric', {}, ['aAcc', 'mIoU', 'mAcc'], 'mIoU'),
        ('mmseg', 'IoUMetric', dict(iou_metrics=['mDice']), ['aAcc', 'mDice', 'mAcc'], 'mDice'),
        (
            *('mmpretrain', 'Accuracy', dict(topk=(5, 1))),
            *(['accuracy/top5', 'accuracy/top1'], 'accuracy/top1'),
        ),
        (
            *('mmpretrain', 'Accuracy', dict(topk=(5, 3))),
            *(['accuracy/top5', 'accuracy/top3'], 'accuracy/top3'),
        ),
        (
            *('mmpretrain', 'Accuracy', dict(topk=1, thrs=(0.0, None))),
            *(['accuracy/top1_thr-0.00', 'accuracy/top1_no-thr'], 'accuracy/top1_thr-0.00'),
        ),
        (
            *('mmpretrain', 'SingleLabelMetric', dict(items=['f1-score'])),
            *(['single-label/f1-score'], 'single-label/f1-score'),
        ),
        (
            *('mmpretrain', 'MultiLabelMetric', dict(average='micro')),
            *(['multi-label/precision_micro'], 'multi-label/precision_micro'),
        ),
        ('mmpretrain', 'AveragePrecision', {}, ['multi-label/mAP'], 'multi-label/mAP'),
    ],
)
def test_main_metrics_of_the_libraries(tmp_path, library, kind, settings, names, expected):
    """The larger is the better, also where mmengine cannot tell from the name."""
    metric = built(kind, library, **settings)
    assert main_metrics(metric)
    run = Run(tmp_path, [Metric(), metric])
    own = {'own/what': 1.0}
    name = f'best_{expected}_epoch_'.replace('/', '_')
    assert run.validate({**own, **dict.fromkeys(names, 0.5)}) == f'{name}1.pth'
    assert run.validate({**own, **dict.fromkeys(names, 0.4)}) == f'{name}1.pth'
    assert run.validate({**own, **dict.fromkeys(names, 0.6)}) == f'{name}3.pth'


def test_lists_per_class_are_no_score(tmp_path):
    metric = built('SingleLabelMetric', 'mmpretrain', average=None)
    run = Run(tmp_path, [metric])
    assert run.validate({'single-label/precision_classwise': [1.0, 0.5]}) is None
    assert 'lacks a single number' in run.logged[0]


def test_a_first_score_that_is_no_number(tmp_path):
    """A later one becomes the best, by the same metric."""
    run = Run(tmp_path, [built('IoUMetric', 'mmseg')])
    assert run.validate({'aAcc': np.float64(1.0), 'mIoU': np.float64('nan')}) is None
    assert run.validate({'aAcc': np.float64(0.5), 'mIoU': np.float64(0.5)}).startswith('best_mIoU')


def test_metrics_of_others_are_chosen_as_mmengine_does(tmp_path):
    run = Run(tmp_path, [Metric()])
    assert main_metrics(Metric()) == ()
    assert run.validate({'own/loss': 2.0, 'own/acc': 1.0}) == 'best_own_loss_epoch_1.pth'
    assert run.validate({'own/loss': 1.0, 'own/acc': 0.0}) == 'best_own_loss_epoch_2.pth'


def test_a_rule_of_the_config_counts(tmp_path):
    run = Run(tmp_path, [built('IoUMetric', 'mmseg')], rule='less')
    assert run.validate({'mIoU': 0.5}) == 'best_mIoU_epoch_1.pth'
    assert run.validate({'mIoU': 0.4}) == 'best_mIoU_epoch_2.pth'


def test_no_rule_for_a_metric_of_others(tmp_path):
    run = Run(tmp_path, [Metric()])
    with pytest.raises(UserError, match=r"is 'own/what' here: set .*checkpoint\.rule to 'greater'"):
        run.validate({'own/what': 1.0})


def test_a_metric_that_is_not_there(tmp_path):
    run = Run(tmp_path, [built('IoUMetric', 'mmseg')], save_best='mIou')
    with pytest.raises(UserError, match=r"names 'mIou', which is none of .* run: aAcc, mIoU"):
        run.validate({'aAcc': 0.5, 'mIoU': 0.5})


def test_several_best_checkpoints(tmp_path):
    run = Run(tmp_path, [built('IoUMetric', 'mmseg')], save_best=['mIoU', 'aAcc'])
    run.validate({'aAcc': 0.5, 'mIoU': 0.5})
    run.validate({'aAcc': 0.6, 'mIoU': 0.4})
    names = sorted(path.name for path in tmp_path.glob('best_*'))
    assert names == ['best_aAcc_epoch_2.pth', 'best_mIoU_epoch_1.pth']


@pytest.mark.parametrize(
    ('former', 'score', 'best'),
    [
        ('mIoU_epoch_1', 0.9, 'best_mIoU_epoch_1.pth'),
        ('mIoU_epoch_1', 0.4, 'best_mIoU_epoch_2.pth'),
        ('aAcc_epoch_1', 0.9, 'best_mIoU_epoch_2.pth'),
        ('mIoU_of_birds_epoch_1', 0.9, 'best_mIoU_epoch_2.pth'),
    ],
)
def test_a_resumed_score_is_compared_with_its_own_metric(tmp_path, former, score, best):
    path = tmp_path / f'best_{former}.pth'
    path.write_text('saved')
    info = {'best_ckpt': str(path), 'best_score': score}
    run = Run(tmp_path, [built('IoUMetric', 'mmseg')], epoch=1, info=info)
    assert run.validate({'aAcc': 0.5, 'mIoU': 0.5}) == best
    other = not former.startswith('mIoU_epoch')
    assert path.exists() == (other or score > 0.5)
    assert len(run.logged) == other
