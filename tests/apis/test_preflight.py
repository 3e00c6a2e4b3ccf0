"""Each wrong config ends in one line that names the mistake and the remedy; right ones pass."""

import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmwave.apis.preflight import PreflightError, preflight
from mmwave.engine.data_checks import coco_form
from mmwave.errors import UserError

DATA = os.environ.get('MMWAVE_DATA')
CATEGORIES = [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}]


def write_image(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path)


def write_coco(root: Path, split: str = 'train', **changes) -> Path:
    """Write two images of 64 x 48 pixels, the first with a box; return the annotation file."""
    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in range(2)]
    box = {'id': 1, 'image_id': 0, 'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400}
    document = {'images': images, 'annotations': [box], 'categories': CATEGORIES} | changes
    for image in images:
        write_image(root / split / image['file_name'])
    path = root / 'annotations' / f'{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding='utf-8')
    return path


def coco(root: Path, split: str = 'train', **changes) -> dict:
    return {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': f'annotations/{split}.json',
        'data_prefix': {'img': f'{split}/'},
        'metainfo': {'classes': ('cat', 'dog')},
        **changes,
    }


def ade(root: Path, **changes) -> dict:
    return {
        'type': 'ADE20KDataset',
        'data_root': str(root),
        'data_prefix': {'img_path': 'images', 'seg_map_path': 'annotations'},
        **changes,
    }


def write_ade(root: Path) -> None:
    write_image(root / 'images' / 'a.jpg')
    write_image(root / 'annotations' / 'a.png')


def config(scope: str, train: dict, val: dict | None = None, **others) -> Config:
    loaders = {'train_dataloader': {'dataset': train}}
    if val is not None:
        loaders['val_dataloader'] = {'dataset': val}
    return Config({'default_scope': scope, **loaders, **others})


def error_of(cfg: Config, **arguments) -> str:
    with pytest.raises(PreflightError) as caught:
        preflight(cfg, **arguments)
    message = str(caught.value)
    assert '\n' not in message
    return message


class TestFolders:
    def test_right_config_passes(self, tmp_path):
        write_coco(tmp_path)
        write_coco(tmp_path, 'val')
        preflight(config('mmdet', coco(tmp_path), coco(tmp_path, 'val')), num_procs=1)

    def test_missing_root_names_every_loader_that_has_it(self, tmp_path):
        missing = tmp_path / 'nowhere'
        message = error_of(config('mmdet', coco(missing), coco(missing, 'val')))
        assert f'data_root {str(missing)!r} does not exist' in message
        assert (
            '--cfg-options train_dataloader.dataset.data_root=DIR '
            'val_dataloader.dataset.data_root=DIR'
        ) in message

    def test_root_that_is_a_file(self, tmp_path):
        (tmp_path / 'file').write_text('')
        assert 'is a file, not a folder' in error_of(config('mmdet', coco(tmp_path / 'file')))

    def test_missing_image_folder(self, tmp_path):
        write_coco(tmp_path)
        cfg = config('mmdet', coco(tmp_path, data_prefix={'img': 'train2017/'}))
        message = error_of(cfg)
        assert f"'{tmp_path}/train2017/' (data_prefix.img) does not exist" in message
        assert 'train_dataloader.dataset.data_prefix.img=' in message

    def test_absolute_prefix_is_not_joined(self, tmp_path):
        write_coco(tmp_path)
        elsewhere = tmp_path / 'elsewhere'
        elsewhere.mkdir()
        preflight(config('mmdet', coco(tmp_path, data_prefix={'img': str(elsewhere)})))

    def test_missing_ann_file(self, tmp_path):
        write_coco(tmp_path)
        message = error_of(config('mmdet', coco(tmp_path, ann_file='annotations/no.json')))
        assert f"annotation file '{tmp_path}/annotations/no.json' does not exist" in message
        assert 'train_dataloader.dataset.ann_file=FILE' in message

    def test_folder_as_ann_file(self, tmp_path):
        write_coco(tmp_path)
        (tmp_path / 'x.json').mkdir()
        assert 'is a folder' in error_of(config('mmdet', coco(tmp_path, ann_file='x.json')))

    def test_empty_list_of_images(self, tmp_path):
        write_ade(tmp_path)
        (tmp_path / 'list.txt').write_text('\n \n')
        assert '0 images listed' in error_of(config('mmseg', ade(tmp_path, ann_file='list.txt')))

    @pytest.mark.parametrize(
        ('wrap', 'key'),
        [
            (lambda d: {'type': 'RepeatDataset', 'times': 2, 'dataset': d}, 'dataset.dataset'),
            (lambda d: {'type': 'ConcatDataset', 'datasets': [d]}, 'dataset.datasets.0'),
        ],
    )
    def test_wrapped_data_set(self, tmp_path, wrap, key):
        message = error_of(config('mmdet', wrap(coco(tmp_path / 'nowhere'))))
        option = f'train_dataloader.{key}.data_root'
        assert f'{option}=DIR' in message
        cfg = config('mmdet', wrap(coco(tmp_path / 'nowhere')))
        write_coco(tmp_path)
        cfg.merge_from_dict({option: str(tmp_path)})
        preflight(cfg)

    def test_remote_data_is_left_alone(self):
        remote = coco(Path('x'), data_root='s3://bucket/coco')
        backend = coco(Path('nowhere'), backend_args={'backend': 'petrel'})
        preflight(config('mmdet', remote, backend))

    def test_data_that_mmpretrain_fetches_itself(self, tmp_path):
        cifar = {'type': 'CIFAR10', 'data_root': str(tmp_path / 'later'), 'split': 'train'}
        preflight(config('mmpretrain', cifar))


class TestSplits:
    def test_test_looks_at_the_test_data_only(self, tmp_path):
        write_coco(tmp_path, 'test')
        cfg = config('mmdet', coco(tmp_path / 'nowhere'))
        cfg.test_dataloader = {'dataset': coco(tmp_path, 'test')}
        preflight(cfg, splits=('test',))
        assert 'train_dataloader' in error_of(cfg)

    def test_training_looks_at_the_validation_data_too(self, tmp_path):
        write_coco(tmp_path)
        message = error_of(config('mmdet', coco(tmp_path), coco(tmp_path / 'nowhere')))
        assert message.startswith('val_dataloader.dataset: data_root')

    def test_missing_loader(self):
        assert 'no test_dataloader' in error_of(Config({}), splits=('test',))

    def test_no_validation_is_fine(self, tmp_path):
        write_coco(tmp_path)
        preflight(config('mmdet', coco(tmp_path), val_dataloader=None))

    def test_unknown_split(self):
        with pytest.raises(ValueError, match=r"unknown \['trian'\].*'train', 'val', 'test'"):
            preflight(Config({}), splits=('trian',))


class TestEvaluator:
    def test_missing_file(self, tmp_path):
        write_coco(tmp_path)
        write_coco(tmp_path, 'val')
        metric = {'type': 'CocoMetric', 'ann_file': 'data/coco/val.json'}
        cfg = config('mmdet', coco(tmp_path), coco(tmp_path, 'val'), val_evaluator=metric)
        message = error_of(cfg)
        assert "val_evaluator: annotation file 'data/coco/val.json' does not exist" in message
        cfg.val_evaluator = [metric]
        assert 'val_evaluator.0.ann_file=FILE' in error_of(cfg)

    def test_other_file_than_the_data_set_reads(self, tmp_path):
        other = str(write_coco(tmp_path))
        same = str(write_coco(tmp_path, 'val'))
        cfg = config(
            'mmdet',
            coco(tmp_path),
            coco(tmp_path, 'val'),
            val_evaluator={'type': 'CocoMetric', 'ann_file': other},
        )
        message = error_of(cfg)
        assert other in message
        assert same in message
        cfg.val_evaluator.ann_file = same
        preflight(cfg)


class TestClassNames:
    def test_wrong_names_list_both_sets(self, tmp_path):
        write_coco(tmp_path)
        classes = {'classes': ('cat', 'horse')}
        message = error_of(config('mmdet', coco(tmp_path, metainfo=classes)))
        assert '1 of 2 classes are not in' in message
        assert "expected classes: 'cat', 'horse'" in message
        assert "categories of the file: 'cat', 'dog'" in message

    def test_what_mmdet_does_with_them(self, tmp_path):
        """The reason for the check: no error, no box."""
        from mmdet.datasets import CocoDataset

        write_coco(tmp_path)
        settings = coco(tmp_path, metainfo={'classes': ('horse',)})
        del settings['type']
        dataset = CocoDataset(**settings)
        assert len(dataset) == 2
        assert sum(len(dataset.get_data_info(i)['instances']) for i in range(2)) == 0

    def test_default_names_of_the_class(self, tmp_path):
        write_coco(tmp_path)
        settings = coco(tmp_path)
        del settings['metainfo']
        message = error_of(config('mmdet', settings))
        assert '78 of 80 classes are not in' in message
        assert "'toothbrush'" not in message
        assert '… and 60 more' in message
        assert 'categories' in error_of(config('mmseg', settings | {'type': 'mmdet.CocoDataset'}))

    def test_other_order_than_the_file(self, tmp_path):
        from mmdet.datasets import CocoDataset

        write_coco(tmp_path)
        settings = coco(tmp_path, metainfo={'classes': ('dog', 'cat')})
        message = error_of(config('mmdet', settings))
        assert "metainfo.classes to ('cat', 'dog')" in message
        # The only box is a cat; mmdet calls it by label 0, which would be the dog.
        del settings['type']
        assert CocoDataset(**settings).get_data_info(0)['instances'][0]['bbox_label'] == 0

    def test_subset_of_the_names_is_fine(self, tmp_path):
        write_coco(tmp_path)
        preflight(config('mmdet', coco(tmp_path, metainfo={'classes': ('dog',)})))

    def test_string_for_a_tuple(self, tmp_path):
        write_coco(tmp_path)
        message = error_of(config('mmdet', coco(tmp_path, metainfo={'classes': 'cat'})))
        assert "('cat',), with the comma" in message

    def test_names_in_a_file(self, tmp_path):
        write_coco(tmp_path)
        names = tmp_path / 'names.txt'
        names.write_text('cat\ndog\n')
        preflight(config('mmdet', coco(tmp_path, metainfo={'classes': str(names)})))
        names.write_text('cat\nhorse\n')
        metainfo = {'classes': str(names)}
        assert "'horse'" in error_of(config('mmdet', coco(tmp_path, metainfo=metainfo)))

    def test_name_twice_in_the_file(self, tmp_path):
        write_coco(tmp_path, categories=[*CATEGORIES, {'id': 9, 'name': 'dog'}])
        assert "twice: 'dog'" in error_of(config('mmdet', coco(tmp_path)))

    def test_file_without_categories(self, tmp_path):
        write_coco(tmp_path, categories=[])
        assert 'no COCO categories' in error_of(config('mmdet', coco(tmp_path)))

    def test_other_json_formats_are_left_alone(self, tmp_path):
        write_image(tmp_path / 'train' / 'a.jpg')
        (tmp_path / 'a.json').write_text('{"metainfo": {}, "data_list": []}')
        settings = coco(tmp_path, ann_file='a.json') | {'type': 'BaseDetDataset'}
        preflight(config('mmdet', settings))


class TestBrokenJson:
    def test_cut_file_is_named_with_the_position(self, tmp_path):
        path = write_coco(tmp_path)
        text = path.read_text()
        path.write_text(text[: len(text) // 2])
        message = error_of(config('mmdet', coco(tmp_path)))
        assert str(path) in message
        assert f'({len(text) // 2} bytes) is cut or no valid JSON' in message
        assert f'(character {len(text) // 2})' in message or 'line 1, column' in message

    def test_bytes_that_are_no_text(self, tmp_path):
        path = write_coco(tmp_path)
        path.write_bytes(b'{"a": "\xff\xfe"}')
        message = error_of(config('mmdet', coco(tmp_path)))
        assert f'{path} (11 bytes) is no text: byte 7' in message


class TestNamesOfClasses:
    """A text is no names, for any task; nor are folders that the names do not fit."""

    @pytest.mark.parametrize('task', ['mmdet', 'mmseg', 'mmpretrain'])
    def test_a_text(self, tmp_path, task):
        write_coco(tmp_path)
        write_ade(tmp_path)
        names = tmp_path / 'names.txt'
        names.write_text('cat\n')
        data = {
            'mmdet': coco(tmp_path),
            'mmseg': ade(tmp_path, type='BaseSegDataset'),
            'mmpretrain': {'type': 'CustomDataset', 'data_root': str(tmp_path / 'classes')},
        }[task]
        write_image(tmp_path / 'classes' / 'cat' / 'a.jpg')
        wrapped = {'type': 'RepeatDataset', 'times': 2}
        for text in ('cat', ('cat')):
            settings = wrapped | {'dataset': data | {'metainfo': {'classes': text}}}
            message = error_of(config(task, settings))
            assert message.startswith("train_dataloader.dataset.dataset: metainfo.classes is 'cat'")
            assert message.endswith("a single class is written ('cat',), with the comma")
        for classes in (str(names), ('cat',)):
            preflight(config(task, data | {'metainfo': {'classes': classes}}))

    def test_names_that_ade_does_not_have(self, tmp_path):
        write_ade(tmp_path)
        message = error_of(config('mmseg', ade(tmp_path, metainfo={'classes': ('crop',)})))
        assert "metainfo.classes: 'crop' not among the 150 classes of ADE20KDataset" in message

    def test_folders_and_lists(self, tmp_path):
        write_image(tmp_path / 'train' / 'cat' / 'a.jpg')
        (tmp_path / 'train' / '.ipynb_checkpoints').mkdir()
        settings = {'type': 'CustomDataset', 'data_root': str(tmp_path), 'data_prefix': 'train'}
        preflight(config('mmpretrain', settings))
        message = error_of(config('mmpretrain', settings | {'metainfo': {'classes': ('cat',)}}))
        assert "folder '.ipynb_checkpoints' is taken for a class: remove it" in message
        path = tmp_path / 'list.txt'
        path.write_text('cat/a.jpg cat\n')
        message = error_of(config('mmpretrain', settings | {'ann_file': 'list.txt'}))
        assert f"line 1 of '{path}' is 'cat/a.jpg cat'" in message
        remote = {'data_root': 's3://bucket/data', 'metainfo': {'classes': ('cat',)}}
        preflight(config('mmpretrain', settings | remote))


def test_settings_of_the_check_of_data(tmp_path):
    write_coco(tmp_path)
    cfg = config('mmdet', coco(tmp_path))
    for setting in (True, False, None, {'max_broken_images': 3}):
        cfg.data_check = setting
        preflight(cfg)
    cfg.data_check = {'max_brokn': 3}
    with pytest.raises(UserError, match=r'^data_check has no max_brokn: accepted are max_files, '):
        preflight(cfg)


def test_parts_that_are_none(tmp_path):
    write_coco(tmp_path)
    cfg = config('mmdet', coco(tmp_path))
    cfg.model = None
    assert error_of(cfg) == 'model is None, expected the settings of one'
    cfg = config('mmdet', coco(tmp_path))
    cfg.train_dataloader.dataset = None
    assert error_of(cfg) == 'train_dataloader has no dataset'


class TestCocoForm:
    """The kinds of faults are tested where the report is; here, that the config decides."""

    def test_what_mmdet_cannot_build(self, tmp_path):
        path = write_coco(tmp_path, annotations={'1': {}})
        message = error_of(config('mmdet', coco(tmp_path)))
        assert message.startswith(f"train_dataloader.dataset: '{path}' cannot be used: ")
        assert "'annotations' is dict, not a list of objects" in message

    def test_byte_order_mark(self, tmp_path):
        path = write_coco(tmp_path)
        path.write_text(path.read_text(), encoding='utf-8-sig')
        message = error_of(config('mmdet', coco(tmp_path)))
        assert f'{path} is UTF-8 with a byte-order mark' in message

    def test_masks_only_where_they_are_trained(self, tmp_path):
        write_coco(tmp_path)
        for masks in (True, False):
            pipeline = [{'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': masks}]
            cfg = config('mmdet', coco(tmp_path, pipeline=pipeline))
            if masks:
                assert "1 annotations without 'segmentation': id 1" in error_of(cfg)
            else:
                preflight(cfg)

    def test_metrics_only_where_they_evaluate(self, tmp_path):
        write_coco(tmp_path)
        metric = {'type': 'CocoMetric', 'ann_file': str(write_coco(tmp_path, 'val'))}
        for kind in ('bbox', ['bbox', 'segm']):
            evaluator = metric | {'metric': kind}
            cfg = config('mmdet', coco(tmp_path), coco(tmp_path, 'val'), val_evaluator=evaluator)
            if kind == 'bbox':
                preflight(cfg)
            else:
                assert "annotations without 'segmentation': id 1" in error_of(cfg)


class TestEmptyData:
    def test_everything_filtered_out(self, tmp_path):
        from mmdet.datasets import CocoDataset

        write_coco(tmp_path)
        settings = coco(tmp_path, filter_cfg={'filter_empty_gt': True, 'min_size': 49})
        assert '0 of 2 images' in error_of(config('mmdet', settings))
        preflight(config('mmdet', settings | {'test_mode': True}))
        kept = settings | {'filter_cfg': {'filter_empty_gt': True, 'min_size': 48}}
        preflight(config('mmdet', kept))
        for expected in (settings, kept):
            arguments = {k: v for k, v in expected.items() if k != 'type'}
            arguments |= {'serialize_data': False}
            report = coco_form.report(tmp_path / 'annotations' / 'train.json', ('cat', 'dog'))
            ours = report.images_kept(**expected['filter_cfg'])
            assert ours == len(CocoDataset(**arguments))

    def test_wrong_suffix(self, tmp_path):
        write_ade(tmp_path)
        preflight(config('mmseg', ade(tmp_path)))
        message = error_of(config('mmseg', ade(tmp_path, img_suffix='.jpeg')))
        assert f"0 images found in '{tmp_path}/images' with suffix .jpeg" in message
        assert "(it holds 'a.jpg')" in message

    def test_default_suffix_of_the_class(self, tmp_path):
        write_ade(tmp_path)
        settings = ade(tmp_path) | {'type': 'CityscapesDataset'}
        assert 'with suffix _leftImg8bit.png' in error_of(config('mmseg', settings))
        write_image(tmp_path / 'images' / 'town' / 'x_leftImg8bit.png')
        preflight(config('mmseg', settings))

    def test_empty_folder(self, tmp_path):
        (tmp_path / 'images').mkdir()
        (tmp_path / 'annotations').mkdir()
        assert '(it holds no file)' in error_of(config('mmseg', ade(tmp_path)))

    def test_classification_folder(self, tmp_path):
        write_image(tmp_path / 'train' / 'a.jpg')
        settings = {'type': 'ImageNet', 'data_root': str(tmp_path), 'split': 'train'}
        message = error_of(config('mmpretrain', settings))
        # An image that lies beside the class folders is in no class.
        assert f"0 images found in subfolders of '{tmp_path}/train' with suffix .jpg" in message
        write_image(tmp_path / 'train' / 'n01' / 'a.JPEG'.lower())
        preflight(config('mmpretrain', settings | {'metainfo': {'classes': ('tench',)}}))

    def test_classification_with_a_list(self, tmp_path):
        settings = {'type': 'ImageNet', 'data_root': str(tmp_path), 'split': 'train'}
        message = error_of(config('mmpretrain', settings))
        assert f"folder '{tmp_path}/train' (split) does not exist" in message
        (tmp_path / 'train').mkdir()
        (tmp_path / 'meta').mkdir()
        (tmp_path / 'meta' / 'train.txt').write_text('')
        assert '0 images listed' in error_of(config('mmpretrain', settings))
        (tmp_path / 'meta' / 'train.txt').write_text('a.jpg 0\n')
        preflight(config('mmpretrain', settings))

    def test_prefix_as_a_string(self, tmp_path):
        write_image(tmp_path / 'here' / 'n01' / 'a.png')
        settings = {'type': 'CustomDataset', 'data_root': str(tmp_path), 'data_prefix': 'here'}
        preflight(config('mmpretrain', settings))
        message = error_of(config('mmpretrain', settings | {'data_prefix': 'there'}))
        assert 'train_dataloader.dataset.data_prefix=SUBFOLDER' in message


class TestProcesses:
    @pytest.fixture
    def cfg(self, tmp_path):
        write_coco(tmp_path)
        return config('mmdet', coco(tmp_path))

    def test_none_at_all(self, cfg):
        assert 'at least 1 is needed' in error_of(cfg, num_procs=0)

    def test_more_than_gpus(self, cfg, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
        preflight(cfg, num_procs=2)
        message = error_of(cfg, num_procs=3)
        assert '3 processes' in message
        assert '2 GPU(s)' in message

    def test_any_number_without_gpus(self, cfg, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
        preflight(cfg, num_procs=64)


@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason='MMWAVE_DATA does not name the folder of real data')
class TestRealData:
    @pytest.mark.parametrize('name', ['coco', 'ade', 'cityscapes', 'flowers'])
    def test_passes(self, name):
        root = Path(DATA or '')
        ann = 'annotations/instances_{}2017.json'
        filter_cfg = {'filter_empty_gt': True, 'min_size': 32}
        scope, sets = {
            'coco': ('mmdet', [
                coco(root / 'coco_mini', metainfo={}, ann_file=ann.format(split),
                     data_prefix={'img': f'{split}2017/'}, filter_cfg=filter_cfg)
                for split in ('train', 'val')
            ]),
            'ade': ('mmseg', [
                ade(root / 'ade_like', data_prefix={
                    'img_path': f'images/{split}', 'seg_map_path': f'annotations/{split}'})
                for split in ('training', 'validation')
            ]),
            'cityscapes': ('mmseg', [
                ade(root / 'street_seg/camvid_cityscapes', type='CityscapesDataset', data_prefix={
                    'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'})
                for split in ('train', 'val')
            ]),
            'flowers': ('mmpretrain', [
                {'type': 'CustomDataset', 'data_root': str(root / 'imagenet_like/flowers5'),
                 'data_prefix': split} for split in ('train', 'val')
            ]),
        }[name]  # fmt: skip
        preflight(config(scope, *sets))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(type='mmwave.GMLP', grid_mode='tile'), "unknown grid_mode 'tile': GMLP has window"),
        (dict(type='mmwave.GMLP', arch='huge'), "unknown arch 'huge': expected one of ti16"),
        (dict(type='mmwave.EAMLP', grid_mode='resize'), "unexpected keyword argument 'grid_mode'"),
        (dict(type='mmwave.GMPL'), 'GMPL is not in the'),
    ],
)
def test_settings_of_our_backbones_are_tried(settings, message):
    cfg = Config(dict(model=dict(backbone=settings)))
    with pytest.raises(PreflightError, match=f'^model.backbone: .*{message}'):
        preflight(cfg, splits=('train',))


def test_backbones_are_tried_without_weights_and_others_are_not():
    ours = dict(type='mmwave.GMLP', init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
    for settings in (ours, dict(type='mmdet.ResNet', depth='no number')):
        with pytest.raises(PreflightError, match='train_dataloader'):
            preflight(Config(dict(model=dict(backbone=settings))), splits=('train',))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('aot_eager', "compile='aot_eager' must be True, False or a dict of options"),
        (dict(backend='none'), "compile: Invalid backend: 'none'"),
        (dict(mode='quick'), 'compile: Unrecognized mode=quick, should be one of'),
        (dict(size=32), "compile: .* unexpected keyword argument 'size'"),
        (dict(options=dict(quick=1)), 'compile: Unexpected optimization option quick, known'),
    ],
)
def test_options_of_compile_are_tried(options, message):
    with pytest.raises(PreflightError, match=f'^{message}') as caught:
        preflight(Config(dict(compile=options)), splits=('train',))
    assert len(str(caught.value)) < 320


def test_options_that_fit_are_accepted():
    for options in (True, False, None, {}, dict(backend='aot_eager', dynamic=True)):
        with pytest.raises(PreflightError, match='train_dataloader'):
            preflight(Config(dict(compile=options)), splits=('train',))
