"""No picture of an image takes the place of another's, in whatever process it was drawn."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from mmengine.visualization import Visualizer
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmwave.engine.drawing import draw_in_every_process
from mmwave.engine.hooks import PictureNamesHook
from mmwave.engine.hooks.picture_names import PictureNames

CLASHING = ['a/0.jpg', 'a/1.png', 'b/0.jpg', 'b/c/0.jpg']
DIFFERENT = ['a/0.jpg', 'a/1.jpg', 'b/0.png', 'b/c/2.jpg']
GREYS = [40, 90, 140, 190]


@pytest.fixture(autouse=True)
def visualizer():
    """The libraries' hooks ask for one, whichever."""
    return Visualizer.get_instance('pictures')


class Images:
    """A data set of grey images."""

    def __init__(self, root, names):
        self.paths = [str(root / 'images' / name) for name in names]
        for path, grey in zip(self.paths, GREYS, strict=True):
            (root / 'images').joinpath(path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(path, np.full((40, 60, 3), grey, np.uint8))

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {'img_path': self.paths[index], 'sample_idx': index}


def detection(folder):
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=['a'], palette=[(255, 0, 0)])
    nothing = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0)
    )
    hook = DetVisualizationHook(draw=True, test_out_dir=str(folder))
    return hook, visualizer, lambda: DetDataSample(pred_instances=nothing)


def segmentation(folder):
    visualizer = SegLocalVisualizer(
        vis_backends=[dict(type='LocalVisBackend')],
        save_dir=str(folder),
        alpha=0.001,
    )
    visualizer.dataset_meta = dict(classes=['wall'], palette=[[255, 0, 0]])
    labels = torch.zeros(1, 40, 60, dtype=torch.long)
    hook = SegVisualizationHook(draw=True, interval=1)
    return hook, visualizer, lambda: SegDataSample(pred_sem_seg=PixelData(data=labels))


def classification(folder, **settings):
    visualizer = UniversalVisualizer()
    visualizer.dataset_meta = dict(classes=['cat', 'dog'])
    settings = dict(out_dir=str(folder), draw_pred=False) | settings
    hook = VisualizationHook(enable=True, interval=1, **settings)
    return hook, visualizer, lambda: DataSample().set_pred_score(torch.tensor([0.2, 0.8]))


def draw(task, folder, dataset, indices, *, test=True, batch=1, named=True):
    """Draw these images as one process does, by the library's own hook."""
    hook, visualizer, sample = task(folder)
    hook._visualizer = visualizer
    draw_in_every_process(visualizer)
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(
        visualizer=visualizer,
        val_dataloader=loader,
        test_dataloader=loader,
        work_dir=str(folder),
        timestamp='',
        iter=3,
        train_loop=None,
    )
    mode = 'test' if test else 'val'
    if named:
        getattr(PictureNamesHook(), f'before_{mode}')(runner)
    after = getattr(hook, f'after_{mode}_iter')
    for step in range(0, len(indices), batch):
        chosen = indices[step : step + batch]
        outputs = [sample() for _ in chosen]
        images = []
        for index, output in zip(chosen, outputs, strict=True):
            info = dataset.get_data_info(index)
            output.set_metainfo(info)
            images.append(torch.full((3, 40, 60), GREYS[index]))
        after(runner, step // batch, dict(inputs=images), outputs)


def pictures(folder):
    """Return the grey of each picture's corner by its file."""
    found = [p for p in folder.rglob('*') if p.suffix in ('.jpg', '.png')]
    return {
        str(p.relative_to(folder)).rpartition('vis_image/')[2]: int(cv2.imread(str(p))[0, -1, 0])
        for p in found
    }


WANTED = {
    detection: (CLASHING, DIFFERENT),
    segmentation: (
        [f'test_{name.rpartition("/")[2]}_{i}.png' for i, name in enumerate(CLASHING, 1)],
        [f'test_{name.rpartition("/")[2]}_{i}.png' for i, name in enumerate(DIFFERENT, 1)],
    ),
    classification: (
        [f'{name}_0.png' for name in CLASHING],
        [f'{name}_0.png' for name in DIFFERENT],
    ),
}


@pytest.mark.parametrize('split', [[[0, 1, 2, 3]], [[0, 2], [1, 3]], [[3, 1, 0, 2]]], ids=str)
@pytest.mark.parametrize('task', WANTED)
def test_every_image_has_its_picture_and_stock_names_stay_where_they_differ(task, split, tmp_path):
    for kind, names, wanted in zip('cd', (CLASHING, DIFFERENT), WANTED[task], strict=True):
        dataset = Images(tmp_path / kind, names)
        folder = tmp_path / kind / 'shown'
        for indices in split:
            draw(task, folder, dataset, indices)
        if names is DIFFERENT:
            wanted = [name.rpartition('/')[2] for name in wanted]
        got = pictures(folder)
        assert sorted(got) == sorted(wanted)
        for name, grey in zip(wanted, GREYS, strict=True):
            assert abs(got[name] - grey) <= 2, name
    # What the library alone calls those that differ, one process drawing them in order.
    stock = tmp_path / 'stock'
    draw(task, stock, dataset, [0, 1, 2, 3], named=False)
    assert sorted(pictures(stock)) == sorted(got)


def test_pictures_that_go_to_a_backend_are_told_apart(tmp_path):
    """Without a folder, in testing and in the validation of a training."""

    def task(folder):
        hook, visualizer, sample = classification(folder, out_dir=None)
        visualizer = UniversalVisualizer(
            vis_backends=[dict(type='LocalVisBackend')], save_dir=str(folder)
        )
        visualizer.dataset_meta = dict(classes=['cat', 'dog'])
        return hook, visualizer, sample

    dataset = Images(tmp_path, CLASHING)
    for name, test in (('test', True), ('val', False)):
        draw(task, tmp_path / name, dataset, [0, 1, 2, 3], test=test)
        step = 0 if test else 3
        wanted = [
            f'{path.rpartition("/")[2]}_{index}_{step}.png' for index, path in enumerate(CLASHING)
        ]
        assert sorted(pictures(tmp_path / name)) == sorted(wanted)
    draw(classification, tmp_path / 'out', dataset, [0, 1, 2, 3], test=False)
    assert sorted(pictures(tmp_path / 'out')) == sorted(f'{name}_3.png' for name in CLASHING)


def test_images_that_come_from_no_files_are_named_by_their_index(tmp_path):
    dataset = Images(tmp_path, CLASHING)
    dataset.get_data_info = lambda index: {'sample_idx': index}
    # A last batch that is smaller: its count by mmpretrain would be 1 * 1.
    draw(classification, tmp_path / 'shown', dataset, [0, 1, 2], batch=2)
    draw(classification, tmp_path / 'shown', dataset, [3])
    got = pictures(tmp_path / 'shown')
    assert {name: round(grey, -1) for name, grey in got.items()} == {
        f'{index}_0.png': grey for index, grey in enumerate(GREYS)
    }


def test_a_data_set_that_cannot_be_asked_is_named_by_whole_paths(tmp_path):
    dataset = Images(tmp_path, CLASHING)
    names = PictureNames([])
    for path in dataset.paths:
        assert names.file(path) == path.lstrip('/')
        assert not names.differ(path)
    assert len({names.number(path) for path in dataset.paths}) == 4
    remote = PictureNames(['s3://one/a/x.jpg', 's3://one/b/../x.jpg'])
    assert remote.file('s3://one/b/../x.jpg') == 'b/x.jpg'
