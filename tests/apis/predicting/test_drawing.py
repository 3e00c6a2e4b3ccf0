"""What is drawn of predictions, and what is left as it was."""

import warnings

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmwave.apis.predicting.drawing import above, drawer, overlay

CLASSES, PALETTE = ('sky', 'road', 'car'), ((0, 0, 255), (255, 0, 0), (0, 255, 0))  # RGB
GREY = np.full((120, 160, 3), 100, np.uint8)


def detections(*scores: float, dtype=torch.float32, **more) -> DetDataSample:
    boxes = torch.tensor([[10.0, 10, 60, 60], [70, 70, 150, 110]])[: len(scores)]
    found = InstanceData(bboxes=boxes.to(dtype), scores=torch.tensor(scores, dtype=dtype), **more)
    found.labels = torch.arange(len(scores))
    return DetDataSample(pred_instances=found)


def test_colours_of_classes_are_laid_over_the_picture():
    labels = np.zeros((120, 160), int)
    labels[:, 80:] = 1
    labels[:10] = 255  # no class
    drawn = overlay(GREY, labels, CLASSES, PALETTE)
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn[:10, :160], GREY[:10])
    sky, road = drawn[60, 20].astype(int), drawn[60, 120].astype(int)  # BGR
    assert sky[0] > 150
    assert road[2] > 150
    assert max(sky[1:]) == max(road[:2]) < 100
    assert (drawn[:120, :160].reshape(-1, 3)[:, 1] <= 100).all()  # there is no car


def test_the_legend_names_the_classes_that_are_seen():
    labels = np.zeros((120, 160), int)
    one = overlay(GREY, labels, CLASSES, PALETTE)[120:]
    labels[:, :80] = 2
    two = overlay(GREY, labels, CLASSES, PALETTE)[120:]

    def swatches(legend):
        wanted = {name: colour[::-1] for name, colour in zip(CLASSES, PALETTE, strict=True)}
        return {name for name, c in wanted.items() if (legend == c).all(-1).sum() > 100}

    assert swatches(one) == {'sky'}
    assert swatches(two) == {'sky', 'car'}


def test_a_narrow_picture_is_widened_for_its_legend():
    drawn = overlay(GREY[:, :20], np.zeros((120, 20), int), ('a long name of a class',), PALETTE)
    assert drawn.shape[1] > 100
    assert (drawn[:120, 20:] == 255).all()


def test_a_frame_keeps_its_size():
    for labels in (np.zeros((120, 160), int), np.full((120, 160), 255)):
        assert overlay(GREY, labels, CLASSES, PALETTE, inside=True).shape == GREY.shape
    small = overlay(GREY[:30], np.zeros((30, 160), int), CLASSES, PALETTE, inside=True)
    assert (small == small[0, 0]).all()  # no room for a legend


def test_a_frame_s_legend_has_the_largest_classes_that_there_is_room_for():
    labels = np.arange(120)[:, None].repeat(160, 1) // 4
    labels[60:] = 7
    names, palette = [f'class {i}' for i in range(30)], [(0, i * 8, 255) for i in range(30)]
    drawn = overlay(GREY, labels, names, palette, inside=True)
    assert (drawn[:40] == palette[7][::-1]).all(-1).sum() > 100
    assert not (drawn == palette[14][::-1]).all(-1).any()


def test_a_segmentor_s_labels():
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.ones(1, 120, 160).long()))
    drawn = drawer('segmentation', CLASSES, PALETTE, 0.3)(GREY, sample, True)
    assert np.array_equal(
        drawn, overlay(GREY, np.ones((120, 160), int), CLASSES, PALETTE, inside=True)
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_objects_from_the_threshold_on(dtype):
    draw = drawer('detection', CLASSES, PALETTE, 0.5)
    assert np.array_equal(draw(GREY, detections(0.4, 0.2, dtype=dtype), False), GREY)
    drawn = draw(GREY, detections(0.5, 0.2, dtype=dtype), False)
    assert drawn.shape == GREY.shape
    changed = (drawn != GREY).any(-1)
    assert changed[10:60, 8:13].mean() > 0.5  # its left side
    assert not changed[75:105, 75:145].any()
    blue, green, red = drawn[40, 10].astype(int)
    assert blue > red == green  # the first class's colour


def test_a_box_at_the_edge_is_no_warning():
    sample = detections(0.9)
    sample.pred_instances.bboxes = torch.tensor([[0.0, 0, 160, 120]])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        drawn = drawer('detection', CLASSES, PALETTE, 0.5)(GREY, sample, False)
    assert (drawn != GREY).any()


def test_masks_are_drawn():
    masks = torch.zeros(1, 120, 160, dtype=torch.bool)
    masks[0, 20:50, 20:50] = True
    drawn = drawer('detection', CLASSES, PALETTE, 0.5)(GREY, detections(0.9, masks=masks), False)
    assert (drawn != GREY).any(-1)[25:45, 25:45].mean() > 0.9


def test_the_best_are_drawn_last():
    kept = above(detections(0.9, 0.6), 0.5).pred_instances
    assert kept.scores.tolist() == pytest.approx([0.6, 0.9])
    sample = detections(0.9, 0.2)
    assert len(above(sample, 0.5).pred_instances) == 1
    assert len(sample.pred_instances) == 2


def test_a_classifier_s_label():
    sample = DataSample().set_pred_score(torch.tensor([0.1, 0.7, 0.2]))
    sample.set_pred_label(torch.tensor([1]))
    drawn = drawer('classification', CLASSES, PALETTE, 0.3)(GREY, sample, False)
    assert drawn.shape == GREY.shape
    changed = (drawn != GREY).any(-1)
    assert changed[:40].any()
    assert not changed[80:].any()
