"""``mmwave init`` and what it is made of: data read, everything set, wrong input in one line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmwave import apis
from mmwave.apis.config_names import config_files
from mmwave.apis.options import unused_settings
from mmwave.apis.own_data.base import class_counts
from mmwave.apis.own_data.data import OwnData, Split
from mmwave.apis.own_data.inputs import ClassNames, read_class_names, read_inputs
from mmwave.apis.own_data.masks import meaning_of, pair
from mmwave.apis.own_data.rates import plan
from mmwave.apis.own_data.remarks import remarks, size_line
from mmwave.apis.own_data.text import WIDTH, Code, colours, number, statement
from mmwave.cli.program import COMMANDS, parser
from tests.faults.tasks import NUM_IMAGES, SIDE, write_task
from tests.own_data import CLASSES, draw, label_map, write_coco, write_folders, write_masks

BOXES = 'wavemlp-t_retinanet_1x_coco'
MASKS = 'wavemlp-t_sem-fpn_40k_ade20k-512x512'
FOLDERS = 'wavemlp-t_in1k'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Sound data of all three forms; tests that spoil some copy it first."""
    root = tmp_path_factory.mktemp('data')
    write_coco(root / 'train.json')
    write_coco(root / 'val.json', images=2)
    write_masks(root, 'train', label_map(0, 1, 2), label_map(0, 1, 255))
    write_masks(root, 'val', label_map(0, 2, 2))
    write_folders(root, 'train', dict.fromkeys(CLASSES, 4))
    write_folders(root, 'val', dict.fromkeys(CLASSES, 2))
    return root


def arguments(root, form):
    train_val = ','.join
    if form == 'coco':
        names = [str(root / 'train.json'), str(root / 'val.json')]
        return dict(coco=train_val(names), images=train_val(n.removesuffix('.json') for n in names))
    if form == 'masks':
        masks, images = (
            [str(root / kind / split) for split in ('train', 'val')] for kind in ('masks', 'images')
        )
        return dict(masks=train_val(masks), images=train_val(images))
    return dict(folders=train_val(str(root / split) for split in ('train', 'val')))


def load(path):
    cfg = Config.fromfile(path)
    assert unused_settings(cfg) == []
    return cfg


def init(base, root, form, out, **options):
    return apis.init_config(base, str(out), **arguments(root, form), weights='none', **options)


# What is written


def test_a_config_of_boxes(data, tmp_path, monkeypatch):
    report = init(BOXES, data, 'coco', tmp_path / 'my.py', batch=4)
    text = (tmp_path / 'my.py').read_text()
    assert len(text.splitlines()) <= 40
    base = Config.fromfile(config_files()[BOXES])
    monkeypatch.chdir('/')
    cfg = load(tmp_path / 'my.py')
    assert cfg.model.bbox_head.num_classes == len(CLASSES)
    for loader, name in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'val'),
        (cfg.test_dataloader, 'val'),
    ):
        dataset = loader.dataset
        assert dataset.metainfo.classes == CLASSES
        assert len(set(map(tuple, dataset.metainfo.palette))) == len(CLASSES)
        assert Path(dataset.data_root, dataset.ann_file) == data / f'{name}.json'
        assert Path(dataset.data_root, dataset.data_prefix.img) == data / name
        assert dataset.pipeline == base[f'{"train" if name == "train" else "test"}_pipeline']
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(data / 'val.json')
    assert cfg.val_evaluator.metric == base.val_evaluator.metric
    rate = base.optim_wrapper.optimizer.lr * 4 / base.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate) == report.plan.rate
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 4
    assert report.data.train.counts == [3, 3, 3]
    assert report.data.val.in_images == [2, 2, 2]


@pytest.mark.parametrize(
    ('name', 'places'),
    [
        ('wavemlp-t_mask-rcnn_1x_coco', ['roi_head.bbox_head', 'roi_head.mask_head']),
        (
            'asmlp-t_cascade-mask-rcnn_3x_coco',
            [*(f'roi_head.bbox_head.{i}' for i in range(3)), 'roi_head.mask_head'],
        ),
        ('gmlp-s16_upernet_80k_cityscapes-512x1024', ['decode_head', 'auxiliary_head']),
        (MASKS, ['decode_head']),
        (BOXES, ['bbox_head']),
        (FOLDERS, ['head']),
    ],
)
def test_every_head_gets_the_number_of_classes(name, places, tmp_path):
    base = config_files()[name]
    counts = class_counts(Config.fromfile(base).model)
    text = f'_base_ = {str(base)!r}\nclasses = {CLASSES}\n{statement("model", counts)}\n'
    (tmp_path / 'my.py').write_text(text)
    model = Config.fromfile(tmp_path / 'my.py').model
    for place in places:
        head = model
        for key in place.split('.'):
            head = head[int(key)] if key.isdigit() else head[key]
        assert head.num_classes == len(CLASSES)
    assert len(re.findall('num_classes', str(model))) == len(places)


def test_masks_of_instances_are_evaluated(data, tmp_path):
    init('wavemlp-t_mask-rcnn_1x_coco', data, 'coco', tmp_path / 'my.py')
    assert Config.fromfile(tmp_path / 'my.py').test_evaluator.metric == ['bbox', 'segm']


def test_a_config_of_label_maps(data, tmp_path):
    (tmp_path / 'names').write_text('road 128 64 128\ncar 64 0 128\nsky 0 0 1\n')
    report = init(MASKS, data, 'masks', tmp_path / 'my.py', classes=str(tmp_path / 'names'))
    cfg = load(tmp_path / 'my.py')
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
        dataset = loader.dataset
        assert dataset.type == 'BaseSegDataset'
        assert dataset.reduce_zero_label is False
        assert (dataset.img_suffix, dataset.seg_map_suffix) == ('.jpg', '.png')
        assert dataset.metainfo.classes == ('road', 'car', 'sky')
        assert dataset.metainfo.palette == [(128, 64, 128), (64, 0, 128), (0, 0, 1)]
        prefix = dataset.data_prefix
        assert Path(dataset.data_root, prefix.img_path) == data / 'images' / split
        assert Path(dataset.data_root, prefix.seg_map_path) == data / 'masks' / split
    assert cfg.model.decode_head.num_classes == 3
    pixels = 40 * 20
    assert report.data.train.counts == [2 * pixels, 2 * pixels, pixels]


def test_a_config_of_folders(data, tmp_path):
    report = init(FOLDERS, data, 'folders', tmp_path / 'my.py', epochs=6)
    base = Config.fromfile(config_files()[FOLDERS])
    cfg = load(tmp_path / 'my.py')
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == len(CLASSES)
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
        dataset = loader.dataset
        assert set(dataset) == {'type', 'data_root', 'metainfo', 'data_prefix', 'pipeline'}
        assert dataset.type == 'CustomDataset'
        assert Path(dataset.data_root, dataset.data_prefix) == data / split
        assert dataset.metainfo.classes == CLASSES
    assert cfg.train_dataloader.dataset.pipeline == base.train_pipeline
    assert cfg.test_dataloader.dataset.pipeline == base.test_pipeline
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    # The base's five guesses of three classes are always right.
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert cfg.train_cfg.max_epochs == report.plan.epochs == 6
    assert report.data.train.counts == [4] * 3


def test_it_trains_and_evaluates_from_any_folder(tmp_path, monkeypatch):
    """Boxes and masks; tests/test_own_pages.py does the same for the other tasks."""
    monkeypatch.chdir(tmp_path)
    tiny = write_task(tmp_path, 'instances', length=1)
    given = dict(coco='data/boxes.json,data/boxes.json', images='data,data')
    report = apis.init_config(str(tiny), 'my.py', **given)
    assert report.data.train.images == NUM_IMAGES
    assert report.sizes[0] == f'all {SIDE} x {SIDE}'
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    path = str(tmp_path / report.path)
    runner = apis.train(apis.prepare_training(path, work_dir='work'))
    assert runner.iter == report.plan.total
    cfg = apis.prepare_testing(path, 'work/epoch_1.pth', work_dir='test')
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(apis.test(cfg))


def test_long_lists_and_short_ones_are_laid_out_as_by_a_formatter(tmp_path):
    settings = dict(
        dataset=dict(path='a' * 30, other='b' * 30, names=('x',), more=dict(c=1e-4, d=[1, 2])),
        long=dict(one='c' * 40, two='d' * 40, three='e' * 40),
    )
    lines = [
        statement('names', tuple(f'name {i}' for i in range(count)))
        for count in (1, 3, 9, 10, 11, 200)
    ]
    lines += [statement('palette', colours(count)) for count in (1, 3, 9, 24, 25, 300)]
    lines += [statement('model', settings), statement('steps', [settings['long']] * 2)]
    lines += [statement('rate', Code('1 + 1'), 'a comment'), statement('empty', dict(a={}, b=[]))]
    path = tmp_path / 'my.py'
    path.write_text('"""Title."""\n\n' + '\n'.join(lines) + '\n')
    ruff = Path(sys.executable).with_name('ruff')
    style = ['--line-length', str(WIDTH), '--config', "format.quote-style='single'", '--isolated']
    done = subprocess.run([ruff, 'format', '--diff', *style, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '')
    held = Config.fromfile(path)
    assert len(set(held.palette)) == 300
    assert held.steps == [settings['long']] * 2


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0.0002, '2e-4'), (1.25e-05, '1.25e-5'), (0.01, '0.01'), (3.0, '3'), (0.0, '0')],
)
def test_numbers_as_people_write_them(value, text):
    assert number(value) == text
    assert float(text) == value


def test_what_the_command_prints(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [f'--{name}={value}' for name, value in arguments(data, 'coco').items()]
    args = parser().parse_args(['init', BOXES, *given, '--weights', 'none', '--batch', '1'])
    COMMANDS['init'].main(args)
    said = capsys.readouterr().out
    rows = re.findall(r'^ +(\d) +(\w+) +(\d+) +(\d+) +(\d+) +(\d+) *$', said, re.MULTILINE)
    assert rows == [(str(i), name, '3', '3', '2', '2') for i, name in enumerate(CLASSES)]
    assert 'train 3, all 60 x 40; val 2, all 60 x 40' in said
    assert '12 epochs of 3 steps with 1 image on one GPU; learning rate 6.25e-06 = 1e-4 x 1' in said
    assert "warning: rare classes, which will hardly be learnt: 'bolt (3)'" in said
    assert said.endswith('next\n  mmwave check my.py\n  mmwave train my.py\n')


# What is refused


def test_nothing_is_replaced_unless_asked(data, tmp_path):
    path = tmp_path / 'my.py'
    path.write_text('mine')
    with pytest.raises(apis.UsageError, match='exists: --force replaces it'):
        init(FOLDERS, data, 'folders', path)
    assert path.read_text() == 'mine'
    with pytest.raises(apis.UsageError, match='is the base itself'):
        init(str(path), data, 'folders', path, force=True)
    init(FOLDERS, data, 'folders', path, force=True)
    assert path.read_text().startswith('"""Wave-MLP-T for 3 classes')


@pytest.mark.parametrize(
    ('base', 'form', 'line'),
    [
        (MASKS, 'coco', f'is a segmentor, and --coco is for a detector: take .*{BOXES}'),
        (BOXES, 'masks', f'is a detector, and --masks is for a segmentor: take .*{MASKS}'),
        (BOXES, 'folders', f'is a detector, and --folders is for a classifier: take {FOLDERS}'),
        ('wavemlp-t_retinnet_1x_coco', 'coco', f'no such config.*did you mean {BOXES}'),
    ],
)
def test_a_base_of_another_task(base, form, line, data, tmp_path):
    with pytest.raises(apis.UsageError, match=line) as refused:
        init(base, data, form, tmp_path / 'my.py')
    assert '\n' not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('spoil', 'line'),
    [
        (
            dict(names=('bolt', 'nut', 'screw')),
            "only in the training data: 'washer'; only",
        ),
        (dict(names=('nut', 'bolt', 'washer')), "class 'nut' is label 1 .* and label 0"),
        (dict(images=0), 'lists no images'),
        (dict(masks=False), "without 'segmentation'.*; for boxes alone take wavemlp-t_retinanet"),
    ],
)
def test_coco_files_that_do_not_fit(spoil, line, tmp_path):
    write_coco(tmp_path / 'train.json')
    write_coco(tmp_path / 'val.json', **spoil)
    with pytest.raises(apis.UsageError, match=line):
        init('wavemlp-t_mask-rcnn_1x_coco', tmp_path, 'coco', tmp_path / 'my.py')
    assert not (tmp_path / 'my.py').exists()


def test_classes_are_in_the_order_of_the_file_by_which_labels_are_numbered(tmp_path):
    for split in ('train', 'val'):
        write_coco(tmp_path / f'{split}.json', ids=(7, 3, 5))
    report = init(BOXES, tmp_path, 'coco', tmp_path / 'my.py')
    assert report.data.classes == CLASSES
    (tmp_path / 'names').write_text('washer\nbolt\n')
    some = init(BOXES, tmp_path, 'coco', tmp_path / 'b.py', classes=str(tmp_path / 'names'))
    assert some.data.classes == ('bolt', 'washer')
    (tmp_path / 'names').write_text('bolt\nscrew\n')
    with pytest.raises(apis.UsageError, match="--classes: 'screw' not among the categories"):
        init(BOXES, tmp_path, 'coco', tmp_path / 'c.py', classes=str(tmp_path / 'names'))


def test_images_that_are_not_there(tmp_path):
    for split in ('train', 'val'):
        write_coco(tmp_path / f'{split}.json')
    (tmp_path / 'val' / '1.jpg').unlink()
    with pytest.raises(apis.UsageError, match=r"1 of 3 images of .*val.json are missing.*'1.jpg'"):
        init(BOXES, tmp_path, 'coco', tmp_path / 'my.py')


@pytest.mark.parametrize(
    ('given', 'images', 'line'),
    [
        ({}, None, 'give your data by one of --coco TRAIN.json,VAL.json, .*: got none'),
        (dict(coco='train.json'), 'train,val', '--coco train.json: expected two paths .* missing'),
        (dict(coco='train.json,'), 'train,val', 'the second is missing'),
        (dict(coco='train.json,gone.json'), 'train,val', 'gone.json: no such file'),
        (dict(coco='train.json,val'), 'train,val', 'is a folder, expected a file'),
        (dict(coco='train.json,val.json'), None, '--coco needs --images TRAIN_DIR,VAL_DIR'),
        (dict(coco='train.json,val.json'), 'train', '--images train: expected two paths'),
        (dict(masks='train,gone'), 'train,val', 'gone: no such folder'),
        (dict(folders='train,val'), 'train,val', '--images does not go with --folders'),
        (dict(folders='train,val', masks='a,b'), None, 'got --masks and --folders'),
    ],
)
def test_paths_that_are_not_there(given, images, line, data, monkeypatch):
    monkeypatch.chdir(data)
    with pytest.raises(apis.UsageError, match=line):
        read_inputs(given, images)


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('a\n\nb\n', 'line 2 is empty'),
        ('a\nb\na\n', "names twice: 'a'"),
        ('a 1 2 3\nb\n', '1 of 2 lines have a colour'),
        ('a 1 2 300\n', 'line 1 has the colour 1 2 300'),
    ],
)
def test_names_that_are_none(text, line, tmp_path):
    (tmp_path / 'names').write_text(text)
    with pytest.raises(apis.UsageError, match=line):
        read_class_names(str(tmp_path / 'names'))


def test_names_with_blanks_and_numbers_in_them(tmp_path):
    (tmp_path / 'names').write_text('\ufefftraffic light 1 2 3\nfloor 2 255 0 7\n')
    assert read_class_names(str(tmp_path / 'names')) == (
        ('traffic light', 'floor 2'),
        ((1, 2, 3), (255, 0, 7)),
    )
    with pytest.raises(apis.UsageError, match='cannot be read'):
        read_class_names(str(tmp_path / 'gone'))


# Label maps


def pixels(*labels):
    counts = np.zeros(256, dtype=np.int64)
    counts[list(labels)] = 10
    return counts


@pytest.mark.parametrize(
    ('train', 'val', 'names', 'num_classes', 'reduced'),
    [
        ((0, 1, 2), (0, 1), None, 3, False),
        ((0, 1, 2, 255), (2, 255), None, 3, False),
        ((1, 2, 3), (1, 2), None, 3, True),
        ((1, 2, 3), (0, 1), None, 4, False),
        ((0, 1, 2, 3), (1,), 3, 3, True),
        ((0, 1, 2, 3), (1,), 4, 4, False),
        ((0, 1), (0, 1), 5, 5, False),
        ((1, 2), (1, 2), 3, 3, False),
        ((0, 1), (0, 4), None, 5, False),
    ],
)
def test_what_the_values_mean(train, val, names, num_classes, reduced):
    given = ClassNames(tuple(map(str, range(names))), None) if names else None
    meaning = meaning_of(pixels(*train), pixels(*val), given=given, where=('a', 'b'))
    assert (meaning.num_classes, meaning.reduce_zero_label) == (num_classes, reduced)


@pytest.mark.parametrize(
    ('values', 'names', 'line'),
    [
        ((255,), None, 'all pixels of the masks of a are 255'),
        ((0, 255), None, 'hold 0 and 255 alone'),
        ((0, 100, 200), None, 'the labels 0, 100, 200, which are no numbers of classes'),
        ((0, 1, 2, 3), 2, '--classes has 2 names, and the masks have labels up to 3'),
    ],
)
def test_values_that_mean_nothing(values, names, line):
    given = ClassNames(tuple(map(str, range(names))), None) if names else None
    with pytest.raises(apis.UsageError, match=line):
        meaning_of(pixels(*values), pixels(0), given=given, where=('a', 'b'))


@pytest.mark.parametrize(
    ('images', 'masks', 'suffixes', 'stems'),
    [
        (['a.jpg', 'b.jpg'], ['a.png', 'b.png'], ('.jpg', '.png'), ['a', 'b']),
        (['a.JPG'], ['a.png'], ('.JPG', '.png'), ['a']),
        (['x/a_img.png'], ['x/a_gt.png'], ('_img.png', '_gt.png'), ['x/a']),
        (['a.jpg', 'b.jpg'], ['a_mask.png', 'b_mask.png'], ('.jpg', '_mask.png'), ['a', 'b']),
        (['a.png', 'b.png', 'c.jpg'], ['a.png', 'b.png'], ('.png', '.png'), ['a', 'b']),
    ],
)
def test_pairs_are_found_by_their_names(images, masks, suffixes, stems, tmp_path):
    for folder, names in (('i', images), ('m', masks)):
        for name in names:
            draw(tmp_path / folder / name)
    found = pair(str(tmp_path / 'i'), str(tmp_path / 'm'))
    assert (found.img_suffix, found.seg_map_suffix) == suffixes
    assert found.stems == stems
    assert found.skipped == [n for n in images if not n.endswith(suffixes[0])]


def test_label_maps_among_the_images(tmp_path):
    for name in ('a.jpg', 'a.png', 'b.jpg', 'b.png'):
        draw(tmp_path / name)
    found = pair(str(tmp_path), str(tmp_path))
    assert (found.img_suffix, found.seg_map_suffix) == ('.jpg', '.png')
    assert (found.stems, found.skipped, found.alone) == (['a', 'b'], [], [])


def test_what_has_no_partner_is_counted_and_named(tmp_path):
    write_masks(tmp_path, 'train', label_map(0, 1), label_map(0, 1))
    write_masks(tmp_path, 'val', label_map(0, 1))
    (tmp_path / 'images/train/1.jpg').unlink()
    report = init(MASKS, tmp_path, 'masks', tmp_path / 'my.py')
    assert "train: 1 masks have no image and are not used: '1'" in report.warnings
    draw(tmp_path / 'images/train/2.jpg')
    with pytest.raises(apis.UsageError, match=r"1 of 2 images .* have no mask NAME\.png .*'2'"):
        init(MASKS, tmp_path, 'masks', tmp_path / 'b.py')
    draw(tmp_path / 'other/q.png')
    with pytest.raises(apis.UsageError, match='a pair differs in its ending alone'):
        pair(str(tmp_path / 'images/train'), str(tmp_path / 'other'))


@pytest.mark.parametrize(
    ('value', 'line'),
    [
        (
            np.full((40, 60, 3), (3, 2, 1), np.uint8),
            r'1 masks .* of 1 \(r g b: 1 2 3\)',
        ),
        (label_map(0, 1, height=20), 'label map is 20 x 60, image is 40 x 60'),
    ],
)
def test_masks_that_are_no_label_maps(value, line, tmp_path):
    for split in ('train', 'val'):
        write_masks(tmp_path, split, label_map(0, 1))
    draw(tmp_path / 'masks/train/0.png', value=value)
    with pytest.raises(apis.UsageError, match=line):
        init(MASKS, tmp_path, 'masks', tmp_path / 'my.py')


# Folders


@pytest.mark.parametrize(
    ('val', 'line'),
    [
        (dict(bolt=1, nut=1), "only in the training data: 'washer'"),
        ({'bolt': 1, 'nut': 1, 'washer': 1, '.cache': 1}, "'.cache' is taken for a class"),
        ({}, 'has no folders, expected one for each class'),
        (dict(bolt=0, nut=0, washer=0), 'has no images in its folders'),
        (dict(train=1, val=1), 'are no classes: give .*/val/train$'),
    ],
)
def test_folders_that_are_no_classes(val, line, tmp_path):
    write_folders(tmp_path, 'train', dict.fromkeys(CLASSES, 1))
    (tmp_path / 'val').mkdir()
    write_folders(tmp_path, 'val', val)
    with pytest.raises(apis.UsageError, match=line):
        init(FOLDERS, tmp_path, 'folders', tmp_path / 'my.py')


def test_images_that_cannot_be_read_are_named(tmp_path):
    for split in ('train', 'val'):
        write_folders(tmp_path, split, dict.fromkeys(CLASSES, 1))
    (tmp_path / 'train/nut/0.jpg').write_text('<html>')
    report = init(FOLDERS, tmp_path, 'folders', tmp_path / 'my.py')
    broken = str(tmp_path / 'train/nut/0.jpg')
    assert f'train: images that cannot be read: {broken}' in report.warnings
    for path in tmp_path.glob('train/*/0.jpg'):
        path.write_text('')
    with pytest.raises(apis.UsageError, match='no image can be read'):
        init(FOLDERS, tmp_path, 'folders', tmp_path / 'b.py')


def test_names_of_other_classes_than_the_folders(data, tmp_path):
    (tmp_path / 'names').write_text('washer\nnut\nbolt\n')
    with pytest.raises(apis.UsageError, match=r"--classes: folder 'washer' .* has label 2"):
        init(FOLDERS, data, 'folders', tmp_path / 'my.py', classes=str(tmp_path / 'names'))


# Rates and lengths


def test_the_schedule_ends_with_the_run():
    base = Config.fromfile(config_files()[BOXES])
    short = plan(base, 100, batch=2, epochs=6)
    assert (short.steps, short.total) == (50, 300)
    warm, steps = short.settings['param_scheduler']
    assert warm['end'] == 30
    assert (steps['end'], steps['milestones']) == (6, [4, 5])
    long = plan(base, 100000, batch=2, epochs=None)
    assert set(long.settings) == {'optim_wrapper', 'auto_scale_lr'}


def test_a_training_that_counts_iterations():
    base = Config.fromfile(config_files()['gmlp-s16_upernet_80k_cityscapes-512x1024'])
    short = plan(base, 9, batch=2, epochs=40)
    assert short.total == 200
    warm, poly = short.settings['param_scheduler']
    assert warm['end'] == poly['begin'] == round(1500 * 200 / 80000)
    assert poly['end'] == short.settings['train_cfg']['max_iters'] == 200
    interval = short.settings['train_cfg']['val_interval']
    assert short.settings['default_hooks']['checkpoint']['interval'] == interval == 20
    assert plan(base, 9, batch=None, epochs=None).epochs == 80000 / 5


def test_averages_over_a_part_of_the_training():
    base = Config.fromfile(config_files()[FOLDERS])
    short = plan(base, 400, batch=40, epochs=30)
    (hook,) = short.settings['custom_hooks']
    cosine = short.settings['param_scheduler'][1]
    assert cosine['eta_min'] == pytest.approx(base.param_scheduler[1].eta_min * 40 / 1024, rel=0.1)
    assert hook == {**base.custom_hooks[0], 'momentum': 0.03}
    assert 'custom_hooks' not in plan(base, 1281167, batch=128, epochs=None).settings


@pytest.mark.parametrize(
    ('batch', 'epochs', 'line'), [(0, None, '--batch 0'), (None, -1, '--epochs -1')]
)
def test_numbers_below_one(batch, epochs, line):
    with pytest.raises(apis.UsageError, match=line):
        plan(Config.fromfile(config_files()[BOXES]), 10, batch=batch, epochs=epochs)


# Weights


def test_weights_of_a_classifier_go_into_the_backbone_alone(data, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMWAVE_CHECKPOINTS', 'kept')
    (tmp_path / 'kept').mkdir()
    given = arguments(data, 'folders')
    bare = apis.init_config(FOLDERS, 'a.py', **given)
    assert any('starts from random weights' in line for line in bare.warnings)
    torch.save({'backbone.a': torch.ones(1), 'head.a': torch.ones(1)}, f'kept/{FOLDERS}.pth')
    apis.init_config(FOLDERS, 'b.py', **given)
    apis.init_config(FOLDERS, 'c.py', **given, weights=f'kept/{FOLDERS}.pth')
    for name in ('b.py', 'c.py'):
        cfg = Config.fromfile(name)
        assert cfg.model.backbone.init_cfg.checkpoint == str(tmp_path / f'kept/{FOLDERS}.pth')
        assert not cfg.load_from
    with pytest.raises(apis.UsageError, match=r'--weights gone\.pth: no such file'):
        apis.init_config(FOLDERS, 'd.py', **given, weights='gone.pth')


def test_weights_of_a_whole_detector(data, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({'backbone.a': torch.ones(1), 'neck.a': torch.ones(1)}, 'whole.pth')
    given = arguments(data, 'coco')
    apis.init_config(BOXES, 'a.py', **given, weights='whole.pth')
    cfg = Config.fromfile('a.py')
    assert cfg.load_from == str(tmp_path / 'whole.pth')
    assert cfg.model.backbone.init_cfg is None
    monkeypatch.setenv('MMWAVE_CHECKPOINTS', 'gone')
    report = apis.init_config(BOXES, 'b.py', **given)
    assert any('no pretrained weights at' in line for line in report.warnings)


@pytest.mark.parametrize(
    ('base', 'batch', 'weights', 'said'),
    [
        (BOXES, 2, None, True),
        (BOXES, 8, None, False),
        (BOXES, 2, 'none', False),
        ('gmlp-s16_retinanet_1x_coco', 2, None, False),
    ],
)
def test_few_images_for_batch_norms(base, batch, weights, said, data, tmp_path):
    given = arguments(data, 'coco')
    report = apis.init_config(base, str(tmp_path / 'my.py'), **given, batch=batch, weights=weights)
    assert any('norm_eval=True' in line for line in report.warnings) is said


# Remarks


def own(train, val=None, *, unit='images', sizes=((640, 480),), sides=()):
    settings = dict(folder='a'), dict(folder='b')
    train, val = (
        Split(images=sum(c), counts=c, sizes=sizes, settings=s, sides=sides)
        for c, s in zip((train, val or train), settings, strict=True)
    )
    names = tuple(f'c{i}' for i in range(len(train.counts)))
    return OwnData(unit=unit, classes=names, train=train, val=val)


@pytest.mark.parametrize(
    ('data', 'line'),
    [
        (own([900, 900, 0]), "1 of 3 classes have no images in the training data: 'c2'"),
        (own([900, 900], [1, 0]), "1 of 2 classes have images in the training data alone: 'c1'"),
        (own([900, 900, 3]), r"rare classes, which will hardly be learnt: 'c2 \(3\)'"),
        (own([900, 900, 40]), r"'c2 \(40\)'"),
        (own([900]), 'one class alone'),
        (own([900, 900], sizes=((640, 480), (20, 480))), 'least size of 32 pixels.* 20 x 480'),
        (own([900, 900], sizes=((200, 100),)), r'enlarges images 6\.7 times'),
        (
            own([900, 900], unit='objects', sides=[(9.0, (1333, 800))] * 2 + [(20.0, (1333, 800))]),
            '67% of the objects are smaller than 16 pixels',
        ),
    ],
)
def test_what_looks_wrong_is_said(data, line):
    cfg = Config.fromfile(config_files()[BOXES])
    training = plan(cfg, data.train.images, batch=2, epochs=None)
    said = remarks(data, training, cfg, 32)
    assert [text for text in said if re.search(line, text)]
    good = own([900, 900], sides=[(20.0, (640, 480))])
    assert remarks(good, training, cfg, 32) == []


def test_sizes_in_a_line():
    data = own([1], sizes=((640, 480), (320, 200), (500, 375)))
    assert size_line(data.train) == '320 x 200 to 640 x 480, median 500 x 375'
