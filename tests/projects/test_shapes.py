"""The demo's data set: drawn the same every time, and one truth in three formats."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

SHAPES = Path(__file__).parents[2] / 'projects' / 'shapes'
sys.path.insert(0, str(SHAPES))

import draw  # noqa: E402
import generate  # noqa: E402
import scenes  # noqa: E402

TRAIN, VAL, SIZE = 40, 20, 96


def write(out, **changes):
    arguments = {'train': TRAIN, 'val': VAL, 'size': SIZE, 'seed': 3} | changes
    return generate.generate(out, **arguments)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'shapes'
    assert write(out)
    return out


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


def coco(root, split):
    file = root / 'coco' / 'annotations' / f'instances_{generate.COCO_SPLITS[split]}.json'
    return json.loads(file.read_text())


def decode(segmentation):
    counts = segmentation['counts']
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(segmentation['size'], order='F')


# ------------------------------------------------------------------------------- the same pixels


def test_every_byte_is_the_same_in_another_process(root, tmp_path):
    other = tmp_path / 'shapes'
    command = [sys.executable, SHAPES / 'generate.py', other]
    command += ['--train', str(TRAIN), '--val', str(VAL), '--size', str(SIZE), '--seed', '3']
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert contents(other) == contents(root)


def test_another_seed_draws_other_scenes():
    ours, theirs = (scenes.draw_scene(seed, 'val', 0, SIZE).image for seed in (3, 4))
    assert (ours != theirs).mean() > 0.5


def test_train_and_val_share_no_scene(root):
    train, val = (
        {file.read_bytes() for file in (root / 'coco' / generate.COCO_SPLITS[split]).iterdir()}
        for split in scenes.SPLITS
    )
    assert len(train) == TRAIN
    assert len(val) == VAL
    assert not train & val


def test_a_longer_set_begins_with_the_shorter_one(root, tmp_path):
    longer = tmp_path / 'longer'
    write(longer, train=TRAIN + 5)
    shorter_files, longer_files = contents(root), contents(longer)
    ade = [name for name in shorter_files if name.startswith('ade/')]
    assert len(ade) == 2 * (TRAIN + VAL)
    assert all(shorter_files[name] == longer_files[name] for name in ade)


def test_a_finished_set_is_left_alone_and_another_one_replaces_it(tmp_path):
    out = tmp_path / 'shapes'
    assert write(out, train=3, val=1)
    before = {file: file.stat().st_mtime_ns for file in out.rglob('*')}
    assert not write(out, train=3, val=1)
    assert {file: file.stat().st_mtime_ns for file in out.rglob('*')} == before
    assert write(out, train=2, val=1)
    assert len(list((out / 'coco' / 'train2017').iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    out = tmp_path / 'shapes'

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generate, '_annotation', stop)
        with pytest.raises(KeyboardInterrupt):
            write(out, train=3, val=1)
    assert not out.exists()
    assert write(out, train=3, val=1)


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(ValueError, match='holds something else'):
        write(tmp_path)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'train': 0}, 'train must be at least 1, got 0'),
        ({'val': -1}, 'val must be at least 1, got -1'),
        ({'seed': -2}, 'seed must be at least 0, got -2'),
        ({'size': 8}, 'size must be at least 48 pixels, got 8'),
    ],
)
def test_bad_numbers_are_named_before_anything_is_written(tmp_path, changes, named):
    with pytest.raises(ValueError, match=named):
        write(tmp_path / 'shapes', **changes)
    assert not (tmp_path / 'shapes').exists()


def test_the_command_line_names_a_bad_number(tmp_path):
    command = [sys.executable, SHAPES / 'generate.py', tmp_path / 'shapes', '--size', '8']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert 'size must be at least 48 pixels, got 8' in done.stderr
    assert 'Traceback' not in done.stderr


# ------------------------------------------------------------------------------------- one truth


@pytest.mark.parametrize('split', scenes.SPLITS)
def test_boxes_and_areas_fit_the_masks(root, split):
    for annotation in coco(root, split)['annotations']:
        mask = decode(annotation['segmentation'])
        assert mask.shape == (SIZE, SIZE)
        assert mask.sum() == annotation['area'] > 0
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation['bbox']
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation['iscrowd'] == 0


@pytest.mark.parametrize('split', scenes.SPLITS)
def test_label_maps_are_the_masks(root, split):
    content = coco(root, split)
    folder = root / 'ade' / 'annotations' / generate.ADE_SPLITS[split]
    for image in content['images']:
        expected = np.zeros((SIZE, SIZE), np.uint8)
        covered = np.zeros((SIZE, SIZE), int)
        for annotation in content['annotations']:
            if annotation['image_id'] == image['id']:
                mask = decode(annotation['segmentation'])
                expected[mask] = annotation['category_id']
                covered += mask
        assert covered.max() <= 1
        file = folder / Path(image['file_name']).with_suffix('.png')
        found = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('split', scenes.SPLITS)
def test_both_dense_formats_show_the_same_pictures(root, split):
    ours = contents(root / 'coco' / generate.COCO_SPLITS[split])
    assert ours == contents(root / 'ade' / 'images' / generate.ADE_SPLITS[split])


@pytest.mark.parametrize('split', scenes.SPLITS)
def test_crops_lie_in_the_folder_of_their_object(root, split):
    content = coco(root, split)
    names = {category['id']: category['name'] for category in content['categories']}
    annotations = {annotation['id']: annotation for annotation in content['annotations']}
    crops = list((root / 'imagenet' / split).glob('*/*.png'))
    assert len(crops) > len(annotations) / 3
    for crop in crops:
        image_id, annotation_id = map(int, crop.stem.split('_'))
        annotation = annotations[annotation_id]
        assert annotation['image_id'] == image_id
        assert crop.parent.name == names[annotation['category_id']]
        height, width = cv2.imread(str(crop)).shape[:2]
        assert min(height, width) >= max(annotation['bbox'][2:])


def test_the_picture_shows_what_the_mask_says():
    for index in range(8):
        scene = scenes.draw_scene(0, 'train', index, 128)
        background = scene.image[scene.semantic == 0].mean(axis=0)
        for shape in scene.shapes:
            distance = np.linalg.norm(scene.image[shape.mask].mean(axis=0) - background)
            assert distance > 25


def test_every_class_occurs_and_some_scenes_are_empty():
    drawn = [scenes.draw_scene(0, 'train', index, 64) for index in range(64)]
    assert {shape.label for scene in drawn for shape in scene.shapes} == set(
        range(len(scenes.CLASSES))
    )
    empty = [index for index, scene in enumerate(drawn) if not scene.shapes]
    assert empty == [15, 31, 47, 63]


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"split must be one of .*'train', 'val'.*, got 'test'"):
        scenes.draw_scene(0, 'test', 0, 64)


# --------------------------------------------------------------------------- the stock data sets


@pytest.fixture
def scope(request):
    with DefaultScope.overwrite_default_scope(request.param):
        yield


@pytest.mark.parametrize('scope', ['mmdet'], indirect=True)
@pytest.mark.usefixtures('scope')
def test_mmdet_loads_it(root):
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        data_root=str(root / 'coco'),
        ann_file='annotations/instances_train2017.json',
        data_prefix={'img': 'train2017/'},
        metainfo={'classes': scenes.CLASSES},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        ],
        filter_cfg={'filter_empty_gt': False},
    )
    assert len(dataset) == TRAIN
    assert dataset.metainfo['classes'] == scenes.CLASSES
    for index in range(TRAIN):
        drawn = scenes.draw_scene(3, 'train', index, SIZE)
        loaded = dataset[index]
        assert loaded['gt_bboxes_labels'].tolist() == [shape.label for shape in drawn.shapes]
        boxes = loaded['gt_bboxes'].tensor.numpy().reshape(-1, 4)
        truth = np.array([shape.box for shape in drawn.shapes], float).reshape(-1, 4)
        np.testing.assert_array_equal(boxes[:, :2], truth[:, :2])
        np.testing.assert_array_equal(boxes[:, 2:], truth[:, :2] + truth[:, 2:])
        masks = loaded['gt_masks'].masks.astype(bool)
        np.testing.assert_array_equal(
            masks, np.array([shape.mask for shape in drawn.shapes]).reshape(-1, SIZE, SIZE)
        )
        # JPEG changes pixels, but hardly the mean of its 16 x 16 blocks.
        error = loaded['img'].astype(float) - drawn.image
        blocks = error.reshape(SIZE // 16, 16, SIZE // 16, 16, 3).mean(axis=(1, 3))
        assert np.abs(blocks).max() < 4


@pytest.mark.parametrize('scope', ['mmseg'], indirect=True)
@pytest.mark.usefixtures('scope')
def test_mmseg_loads_it(root):
    from mmseg.datasets import BaseSegDataset

    dataset = BaseSegDataset(
        data_root=str(root / 'ade'),
        data_prefix={'img_path': 'images/validation', 'seg_map_path': 'annotations/validation'},
        metainfo={'classes': ('background', *scenes.CLASSES)},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
        ],
    )
    assert len(dataset) == VAL
    for index in range(VAL):
        drawn = scenes.draw_scene(3, 'val', index, SIZE)
        np.testing.assert_array_equal(dataset[index]['gt_seg_map'], drawn.semantic)


@pytest.mark.parametrize('scope', ['mmpretrain'], indirect=True)
@pytest.mark.usefixtures('scope')
def test_mmpretrain_loads_it(root):
    from mmpretrain.datasets import CustomDataset

    dataset = CustomDataset(
        data_root=str(root / 'imagenet'),
        data_prefix='train',
        metainfo={'classes': scenes.CLASSES},
    )
    files = sorted((root / 'imagenet' / 'train').glob('*/*.png'))
    assert len(dataset) == len(files)
    assert {Path(info['img_path']) for info in dataset} == set(files)
    for info in dataset:
        assert Path(info['img_path']).parent.name == scenes.CLASSES[info['gt_label']]


# -------------------------------------------------------------------------------------- drawing


def pairs(count, *, predicted=()):
    image = np.full((32, 32, 3), 90, np.uint8)
    truth = [draw.Box((8, 8, 24, 24), 1)]
    return [draw.Pair(image, truth, predicted) for _ in range(count)]


@pytest.mark.parametrize('count', [1, 4, 5])
def test_the_sheet_has_the_promised_size(count):
    sheet = draw.draw_sheet(pairs(count), scenes.CLASSES, 'title')
    assert sheet.size == draw.sheet_size(count)


def test_truth_is_drawn_above_and_predictions_below():
    # The box of the prediction lies elsewhere, so each half shows its own and not the other's.
    sheet = draw.draw_sheet(
        pairs(1, predicted=[draw.Box((2, 16, 14, 30), 4, 0.9)]), scenes.CLASSES, 'title'
    )
    pixels = np.asarray(sheet)
    middle = draw.HEADER + draw.CELL
    above, below = pixels[:middle], pixels[middle:]

    def painted(half, label):
        return int(
            (half == Image.new('RGB', (1, 1), draw.COLOURS[label]).getpixel((0, 0))).all(-1).sum()
        )

    assert painted(above, 1) > 500
    assert painted(above, 4) == 0
    assert painted(below, 4) > 500
    assert painted(below, 1) == 0


def test_drawing_nothing_or_too_many_classes_is_refused():
    with pytest.raises(ValueError, match='no scenes'):
        draw.draw_sheet([], scenes.CLASSES, 'title')
    with pytest.raises(ValueError, match='6 classes, but only 5 colours'):
        draw.draw_sheet(pairs(1), (*scenes.CLASSES, 'moon'), 'title')


def test_every_class_has_a_colour_of_its_own():
    assert len(set(draw.COLOURS)) == len(draw.COLOURS) == len(scenes.CLASSES)


# -------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ('name', 'others'),
    [
        ('wavemlp-t-dw_retinanet_shapes', ()),
        ('wavemlp-t-dw_sem-fpn_shapes', ('background',)),
        ('wavemlp-t-dw_shapes', ()),
    ],
)
def test_configs_name_the_drawn_classes(name, others):
    cfg = Config.fromfile(SHAPES / 'configs' / f'{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == (*others, *scenes.CLASSES)


def test_the_detectors_schedule_is_as_long_as_its_training():
    cfg = Config.fromfile(SHAPES / 'configs' / 'wavemlp-t-dw_retinanet_shapes.py')
    scenes_drawn = inspect.signature(generate.generate).parameters['train'].default
    steps = scenes_drawn // cfg.auto_scale_lr.base_batch_size * cfg.train_cfg.max_epochs
    assert cfg.param_scheduler[-1].end == steps
