"""Every process draws its own images."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmwave.engine.drawing import draw_in_every_process

IMAGE = np.full((40, 60, 3), 128, np.uint8)


def detection(folder):
    boxes = dict(bboxes=torch.tensor([[5.0, 5, 30, 30]]), labels=torch.tensor([0]))
    sample = DetDataSample(pred_instances=InstanceData(scores=torch.tensor([0.9]), **boxes))
    visualizer = DetLocalVisualizer()
    return visualizer, lambda: visualizer.add_datasample(
        'a', IMAGE, sample, draw_gt=False, out_file=str(folder / 'a.png')
    )


def segmentation(folder):
    labels = torch.zeros(1, 40, 60, dtype=torch.long)
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    # Without a file name, as mmseg's hook draws in testing: through the backend.
    backends = [dict(type='LocalVisBackend')]
    visualizer = SegLocalVisualizer(
        vis_backends=backends, save_dir=str(folder), classes=['wall'], palette=[[255, 0, 0]]
    )
    return visualizer, lambda: visualizer.add_datasample('a', IMAGE, sample, draw_gt=False)


def classification(folder):
    sample = DataSample().set_pred_score(torch.tensor([0.2, 0.8]))
    visualizer = UniversalVisualizer()
    return visualizer, lambda: visualizer.visualize_cls(
        IMAGE, sample, classes=['cat', 'dog'], out_file=str(folder / 'a.png')
    )


@pytest.mark.parametrize('task', [detection, segmentation, classification])
def test_the_second_process_draws_once_it_is_let(task, tmp_path, monkeypatch):
    visualizer, draw = task(tmp_path)
    monkeypatch.setattr('mmengine.dist.utils.is_main_process', lambda *_: False)
    draw()
    assert not list(tmp_path.rglob('*.png'))
    draw_in_every_process(visualizer)
    visualizer.dataset_meta = dict(classes=['a'], palette=[(255, 0, 0)])
    assert visualizer.dataset_meta['classes'] == ['a']
    draw()
    (picture,) = tmp_path.rglob('*.png')
    assert picture.stat().st_size > 0
