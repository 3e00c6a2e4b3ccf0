"""Bad data of each kind is named before the first step, on stock data sets; good data passes."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmwave.engine.data_faults import (
    Findings,
    LabelRule,
    image_fault,
    is_local,
    label_fault,
    spaced,
)
from mmwave.engine.hooks import DataCheckHook, DataError
from mmwave.registry import HOOKS

DATA = os.environ.get('MMWAVE_DATA')


def write_image(path: Path, size: tuple[int, int] = (64, 48), **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path, **settings)
    return path


def write_labels(path: Path, values: np.ndarray | list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return path


def labels(*values: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A map of zeros that begins with the given values."""
    out = np.zeros(shape, dtype=np.uint8)
    out.ravel()[: len(values)] = values
    return out


def model(**heads: nn.Module) -> nn.Module:
    out = nn.Module()
    for name, head in heads.items():
        out.add_module(name, head)
    return out


def head(num_classes: int, **others) -> nn.Module:
    out = nn.Identity()
    out.num_classes = num_classes
    vars(out).update(others)
    return out


def check(dataset, mode: str = 'train', net: nn.Module | None = None, **settings) -> list[str]:
    """Runs the hook on one data set; returns what was logged."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(f'{record.levelname} {record.getMessage()}')
    logger = logging.Logger('check', level=logging.INFO)
    logger.addHandler(handler)
    loaders = {f'{mode}_dataloader': SimpleNamespace(dataset=dataset)}
    runner = SimpleNamespace(model=net or nn.Module(), logger=logger, val_loop=None, **loaders)
    getattr(DataCheckHook(**settings), f'before_{mode}')(runner)
    return records


def error_of(dataset, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        check(dataset, *args, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    return message


class TestDetection:
    @staticmethod
    def dataset(root: Path, boxes: list[dict], num_images: int = 2, **settings):
        from mmdet.datasets import CocoDataset

        images = [
            {'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in range(num_images)
        ]
        for image in images:
            write_image(root / image['file_name'])
        good = {'image_id': 0, 'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400}
        document = {
            'images': images,
            'annotations': [good | {'id': index} | box for index, box in enumerate(boxes)],
            'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
        }
        (root / 'a.json').write_text(json.dumps(document))
        defaults = {'metainfo': {'classes': ('cat', 'dog')}, 'data_prefix': {'img': ''}}
        return CocoDataset(ann_file='a.json', data_root=str(root), **(defaults | settings))

    def test_good(self, tmp_path):
        net = model(bbox_head=head(2))
        (info,) = check(self.dataset(tmp_path, [{}, {}]), net=net)
        assert info.startswith(f'INFO train data, CocoDataset ({tmp_path}/a.json): checked in ')
        assert info.endswith('2 samples, 2 image files looked up, 2 boxes')

    def test_wrong_class_names_leave_no_box(self, tmp_path):
        dataset = self.dataset(tmp_path, [{}], metainfo={'classes': ('horse',)})
        for mode in ('train', 'val', 'test'):
            message = error_of(dataset, mode)
            assert message.startswith(f'{mode} data, CocoDataset ({tmp_path}/a.json)')
            assert '0 boxes in 2 images' in message
            assert "expected classes: ['horse']" in message
            assert "categories of the file: ['cat', 'dog']" in message

    def test_secret_labels_can_be_tested_on_but_not_validated(self, tmp_path):
        dataset = self.dataset(tmp_path, [])
        check(dataset, 'test')
        assert '0 boxes' in error_of(dataset, 'val')

    def test_missing_image(self, tmp_path):
        dataset = self.dataset(tmp_path, [{}], num_images=9)
        (tmp_path / '4.jpg').unlink()
        message = error_of(dataset)
        assert f'1 image files cannot be found: {tmp_path}/4.jpg' in message
        for name in '0123578':
            (tmp_path / f'{name}.jpg').unlink()
        message = error_of(dataset)
        shown = ', '.join(f'{tmp_path}/{name}.jpg' for name in '01234')
        assert f'8 image files cannot be found: {shown}, … and 3 more' in message
        assert error_of(dataset, max_images=2).count('.jpg') == 2  # the first and the last

    def test_empty_image_file(self, tmp_path):
        dataset = self.dataset(tmp_path, [{}])
        (tmp_path / '1.jpg').write_bytes(b'')
        assert f'1 image files are empty: {tmp_path}/1.jpg' in error_of(dataset)

    @pytest.mark.parametrize('number', [float('nan'), float('inf')])
    def test_not_finite_boxes_that_mmdet_drops(self, tmp_path, number):
        dataset = self.dataset(tmp_path, [{}, {'bbox': [4, 4, number, 20]}, {'id': 77}])
        assert '1 annotations with NaN or infinite boxes: id 1' in error_of(dataset)

    def test_boxes_that_mmdet_drops_are_counted(self, tmp_path):
        boxes = [
            {},
            {'bbox': [4, 4, 0, 20]},
            {'bbox': [4, 4, 5, -2]},
            {'bbox': [64, 4, 5, 5]},
            {'bbox': [4, -5, 5, 5]},
            {'bbox': [4, 48, 5, 5]},
            {'category_id': 99},
        ]
        dataset = self.dataset(tmp_path, boxes)
        assert len(dataset.get_data_info(0)['instances']) == 1
        warning, _ = check(dataset)
        assert warning.startswith('WARNING')
        assert '2 without area, 3 outside of their image, 1 of an unknown category' in warning

    def test_boxes_of_the_data_set_itself(self):
        from mmdet.datasets import BaseDetDataset

        class Given(BaseDetDataset):
            def load_data_list(self):
                boxes = [0, 0, 9, 9], [5, 5, 5, 9], [70, 0, 80, 9], [0, 0, 9, self.last]
                instances = [{'bbox': list(box), 'bbox_label': 0} for box in boxes]
                return [{'img_id': 0, 'height': 48, 'width': 64, 'instances': instances}]

        Given.last = 9
        warning, info = check(Given(metainfo={'classes': ('a',)}))
        assert '1 without area, 1 outside of their image' in warning
        assert '4 boxes' in info
        Given.last = float('nan')
        message = error_of(Given(metainfo={'classes': ('a',)}))
        assert '1 boxes with NaN or infinite numbers: 0 [0.0, 0.0, 9.0, nan]' in message

    def test_heads_with_another_number_of_classes(self, tmp_path):
        dataset = self.dataset(tmp_path, [{}])
        roi_head = model(bbox_head=nn.ModuleList([head(2), head(80)]), mask_head=head(2))
        message = error_of(dataset, net=model(roi_head=roi_head))
        assert 'model.roi_head.bbox_head.1.num_classes is 80, the data has 2 classes' in message
        assert 'mask_head' not in message


class TestSegmentation:
    @staticmethod
    def dataset(root: Path, maps: dict[str, np.ndarray], **settings):
        from mmseg.datasets import BaseSegDataset

        for name, values in maps.items():
            write_image(root / 'img' / f'{name}.jpg')
            write_labels(root / 'ann' / f'{name}.png', values)
        defaults = {'metainfo': {'classes': ('road', 'sky', 'tree')}}
        prefix = {'img_path': 'img', 'seg_map_path': 'ann'}
        return BaseSegDataset(data_root=str(root), data_prefix=prefix, **(defaults | settings))

    def test_good(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(0, 1, 2, 255), 'b': labels()})
        net = model(decode_head=head(3, ignore_index=255), auxiliary_head=head(3))
        (info,) = check(dataset, net=net)
        assert f'BaseSegDataset ({tmp_path}/img)' in info
        assert info.endswith('2 samples, 2 image files looked up, 2 label maps read')

    def test_labels_out_of_range(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(2), 'b': labels(3, 30, 255)})
        message = error_of(dataset)
        assert f'{tmp_path}/ann/b.png (labels 3, 30; expected 0..2, 255)' in message
        assert '1 label maps do not fit' in message

    def test_reduce_zero_label(self, tmp_path):
        good = self.dataset(tmp_path / '1', {'a': labels(0, 1, 3, 255)}, reduce_zero_label=True)
        check(good)
        bad = self.dataset(tmp_path / '2', {'a': labels(4, 254)}, reduce_zero_label=True)
        # 254 becomes 253, out of range; 255 stays ignored.
        assert '(labels 4, 254; expected 0..3, 255)' in error_of(bad)

    def test_classes_that_are_left_out(self, tmp_path):
        """A subset of a data set's own classes: the other ones become ignored."""
        from mmseg.datasets import CityscapesDataset

        write_image(tmp_path / 'img' / 'a_leftImg8bit.png')
        path = write_labels(tmp_path / 'ann' / 'a_gtFine_labelTrainIds.png', labels(0, 5, 18, 255))
        prefix = {'img_path': 'img', 'seg_map_path': 'ann'}
        metainfo = {'classes': ('road', 'car')}
        dataset = CityscapesDataset(data_root=str(tmp_path), data_prefix=prefix, metainfo=metainfo)
        check(dataset)
        write_labels(path, labels(19))
        assert '(labels 19; expected 0..18, 255)' in error_of(dataset)

    @pytest.mark.parametrize('reduce_zero_label', [False, True])
    @pytest.mark.parametrize('classes', [('sky', 'wall'), None])
    def test_rule_agrees_with_what_mmseg_loads(self, tmp_path, reduce_zero_label, classes):
        from mmseg.datasets import ADE20KDataset
        from mmseg.datasets.transforms import LoadAnnotations

        every_value = np.arange(256, dtype=np.uint8).reshape(16, 16)
        write_image(tmp_path / 'img' / 'a.jpg', (16, 16))
        write_labels(tmp_path / 'ann' / 'a.png', every_value)
        dataset = ADE20KDataset(
            data_root=str(tmp_path),
            data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
            reduce_zero_label=reduce_zero_label,
            metainfo={'classes': classes} if classes else None,
        )
        info = dataset.get_data_info(0)
        loaded = LoadAnnotations()(dataset.get_data_info(0))['gt_seg_map'].ravel()
        for ignore_index in (255, 254):
            rule = LabelRule(
                num_classes=len(dataset.metainfo['classes']),
                ignore_index=ignore_index,
                reduce_zero_label=info['reduce_zero_label'],
                label_map=info['label_map'],
            )
            expected = (loaded < rule.num_classes) | (loaded == ignore_index)
            np.testing.assert_array_equal(rule.allowed, expected)
            assert 0 < expected.sum() < 256

    def test_label_map_of_another_size(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(shape=(32, 48)), 'b': labels()})
        message = error_of(dataset)
        assert f'{tmp_path}/ann/a.png (label map is 32 x 48, image is 48 x 64)' in message

    def test_photo_that_is_turned_by_exif(self, tmp_path):
        """OpenCV turns the photo while loading it, so the label map has to be turned."""
        from mmcv.transforms import LoadImageFromFile

        dataset = self.dataset(tmp_path, {'a': labels(shape=(64, 48))})
        assert 'image is 48 x 64' in error_of(dataset)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = write_image(tmp_path / 'img' / 'a.jpg', exif=exif)
        assert LoadImageFromFile()({'img_path': str(path)})['img'].shape == (64, 48, 3)
        check(dataset)

    def test_colour_label_map(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': np.zeros((48, 64, 3), dtype=np.uint8)})
        assert 'a.png (label map has 3 channels, expected 1)' in error_of(dataset)

    def test_palette_label_map_is_read_as_indices(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels()})
        image = Image.fromarray(labels(0, 1, 2, 255)).convert('P')
        image = Image.frombytes('P', image.size, labels(0, 1, 2, 255).tobytes())
        image.putpalette([200, 30, 40] * 256)
        image.save(tmp_path / 'ann' / 'a.png')
        check(dataset)

    def test_labels_wider_than_a_byte(self, tmp_path):
        """258 would become class 2 when the loader makes bytes of it."""
        wide = labels().astype(np.uint16)
        wide[0, :3] = 258, 1, 2
        dataset = self.dataset(tmp_path, {'a': wide})
        assert '(labels 258; expected 0..2, 255)' in error_of(dataset)
        wide[0, 0] = 2
        write_labels(tmp_path / 'ann' / 'a.png', wide)
        check(dataset)

    def test_missing_label_map(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(), 'b': labels()})
        (tmp_path / 'ann' / 'b.png').unlink()
        assert f'1 label maps cannot be found: {tmp_path}/ann/b.png' in error_of(dataset)

    def test_unreadable_files(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(), 'b': labels(), 'c': labels()})
        cut = tmp_path / 'ann' / 'a.png'
        cut.write_bytes(cut.read_bytes()[:-30])
        (tmp_path / 'ann' / 'b.png').write_text('no image')
        (tmp_path / 'img' / 'c.jpg').write_text('no image')
        message = error_of(dataset)
        assert f'2 label maps cannot be read: {cut} (' in message
        assert f'1 image files cannot be read: {tmp_path}/img/c.jpg (' in message

    def test_missing_image(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels()})
        (tmp_path / 'img' / 'a.jpg').unlink()
        assert error_of(dataset).endswith(f'1 image files cannot be found: {tmp_path}/img/a.jpg')

    def test_emptied_data_set(self, tmp_path):
        from mmseg.datasets import BaseSegDataset

        (tmp_path / 'img').mkdir()
        dataset = BaseSegDataset(
            data_root=str(tmp_path),
            data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
            img_suffix='.jpeg',
            serialize_data=False,
        )
        expected = f'0 images found in {tmp_path}/img with suffix .jpeg'
        assert error_of(dataset).endswith(expected)

    def test_no_label_maps_to_look_at(self, tmp_path):
        from mmseg.datasets import BaseSegDataset

        write_image(tmp_path / 'img' / 'a.jpg')
        prefix = {'img_path': 'img'}
        check(BaseSegDataset(data_root=str(tmp_path), data_prefix=prefix), 'test')

    def test_heads_with_another_number_of_classes(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels()})
        net = model(decode_head=head(150), auxiliary_head=nn.ModuleList([head(3), head(19)]))
        # Training on several GPUs wraps the model.
        message = error_of(dataset, net=model(module=net))
        assert '2 heads of another number of classes' in message
        assert 'model.decode_head.num_classes is 150, the data has 3 classes' in message
        assert 'model.auxiliary_head.1.num_classes is 19' in message

    def test_head_says_what_is_ignored(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(255)})
        net = model(decode_head=head(3, ignore_index=254))
        assert '(labels 255; expected 0..2, 254)' in error_of(dataset, net=net)

    def test_head_says_the_number_when_the_data_does_not(self, tmp_path):
        dataset = self.dataset(tmp_path, {'a': labels(9)}, metainfo=None)
        check(dataset)
        check(dataset, net=model(decode_head=head(10)))
        assert 'expected 0..8, 255' in error_of(dataset, net=model(decode_head=head(9)))

    def test_limit_is_spread_evenly(self, tmp_path):
        dataset = self.dataset(tmp_path, {f'{i}': labels() for i in range(9)})
        write_labels(tmp_path / 'ann' / '4.png', labels(7))
        assert 'label maps read' in check(dataset, max_files=2)[0]
        assert '4.png' in error_of(dataset, max_files=3)


class TestClassification:
    @staticmethod
    def dataset(root: Path, lines: str, **settings):
        from mmpretrain.datasets import CustomDataset

        for line in lines.splitlines():
            write_image(root / line.split()[0])
        (root / 'list.txt').write_text(lines)
        settings = {'metainfo': {'classes': ['a', 'b']}} | settings
        return CustomDataset(data_root=str(root), ann_file='list.txt', **settings)

    def test_good(self, tmp_path):
        dataset = self.dataset(tmp_path, 'x.jpg 0\ny.jpg 1\n')
        (info,) = check(dataset, net=model(head=head(2)))
        assert info.endswith('2 samples, 2 image files looked up')

    def test_label_without_a_class(self, tmp_path):
        dataset = self.dataset(tmp_path, 'x.jpg 0\ny.jpg 2\nz.jpg -1\n')
        message = error_of(dataset)
        assert f'2 labels without a class: {tmp_path}/y.jpg (label 2, expected 0..1)' in message
        assert f'{tmp_path}/z.jpg (label -1, expected 0..1)' in message

    def test_several_labels(self):
        for several in ([0, 1], np.array([1, 0]), [], np.int64(1)):
            assert label_fault({'gt_label': several}, 2) is None
        fault = label_fault({'gt_label': [0, 2], 'img_path': 'x.jpg'}, 2)
        assert fault == 'x.jpg (label [0, 2], expected 0..1)'

    def test_number_of_classes_of_the_head(self, tmp_path):
        dataset = self.dataset(tmp_path, 'x.jpg 0\n')
        message = error_of(dataset, net=model(head=head(1000)))
        assert 'model.head.num_classes is 1000, the data has 2 classes' in message
        unnamed = self.dataset(tmp_path, 'x.jpg 5\n', metainfo=None)
        check(unnamed, net=model(head=head(6)))
        assert 'expected 0..4' in error_of(unnamed, net=model(head=head(5)))

    def test_missing_image(self, tmp_path):
        dataset = self.dataset(tmp_path, 'x.jpg 0\ny.jpg 1\n')
        (tmp_path / 'y.jpg').unlink()
        assert f'{tmp_path}/y.jpg' in error_of(dataset)


class TestWrappersAndStorage:
    @pytest.mark.parametrize(
        'wrap',
        [
            lambda d: RepeatDataset(d, times=3),
            lambda d: ConcatDataset([d]),
            lambda d: torch.utils.data.Subset(d, [0]),
            lambda d: torch.utils.data.Subset(ConcatDataset([d]), [0]),
        ],
    )
    def test_looks_inside_once(self, tmp_path, wrap):
        dataset = TestClassification.dataset(tmp_path, 'x.jpg 0\ny.jpg 1\n')
        (info,) = check(wrap(dataset))
        assert 'CustomDataset' in info
        assert '2 samples' in info
        (tmp_path / 'y.jpg').unlink()
        assert 'y.jpg' in error_of(wrap(dataset))

    def test_remote_files_are_left_alone(self, tmp_path):
        dataset = TestSegmentation.dataset(tmp_path, {'a': labels(9)})
        assert is_local(dataset)
        dataset.backend_args = {'backend': 'petrel'}
        assert not is_local(dataset)
        assert '0 image files looked up' in check(dataset)[0]
        dataset.backend_args = {'backend': 'local'}
        assert 'labels 9' in error_of(dataset)
        reader = SimpleNamespace(backend_args={'backend': 'http'})
        dataset.pipeline.transforms.append(reader)
        assert not is_local(dataset)
        assert image_fault('s3://bucket/a.jpg') is None

    def test_data_sets_of_other_libraries(self):
        check(torch.utils.data.TensorDataset(torch.zeros(3)))
        assert '0 images found' in error_of(torch.utils.data.TensorDataset(torch.zeros(0)))

    def test_spaced(self):
        assert list(spaced(range(1, 100, 3), None)) == list(range(1, 100, 3))
        assert list(spaced(range(5), 5)) == [0, 1, 2, 3, 4]
        assert list(spaced(range(101), 3)) == [0, 50, 100]

    @pytest.mark.parametrize('name', ['max_files', 'max_images', 'num_threads'])
    def test_bad_settings(self, name):
        with pytest.raises(ValueError, match=f'{name} must be .*at least 1, got 0'):
            DataCheckHook(**{name: 0})


class TestProcesses:
    def test_findings_of_all_are_added_up(self):
        parts = [Findings(samples=2, boxes=1), Findings(samples=3, label_maps=4, degenerate=5)]
        for index, part in zip((7, 3), parts, strict=True):
            for step in range(4):
                part.add('broken', index + 10 * step, f'file {index + 10 * step}')
        total = Findings.merged(parts)
        assert (total.samples, total.boxes, total.label_maps, total.degenerate) == (5, 1, 4, 5)
        (line,) = total.errors()
        assert line == '8 broken: file 3, file 7, file 13, file 17, file 23, … and 3 more'

    @pytest.mark.dist
    def test_each_does_its_share_and_all_say_the_same(self, tmp_path):
        for index in range(7):
            write_image(tmp_path / f'{index}.jpg')
            values = (40 + index,) if index in (2, 5) else ()
            write_labels(tmp_path / f'{index}.png', labels(*values))
        # Forked, because a fresh interpreter could not import this file under every import mode.
        torch.multiprocessing.start_processes(
            _two_processes, (tmp_path,), nprocs=2, start_method='fork'
        )
        messages = [(tmp_path / f'{rank}.txt').read_text() for rank in range(2)]
        assert messages[0] == messages[1]
        assert '2 label maps do not fit' in messages[0]
        # Sample 2 belongs to the first process, sample 5 to the second.
        assert messages[0].index('labels 42') < messages[0].index('labels 45')
        assert [(tmp_path / f'{rank}.count').read_text() for rank in range(2)] == ['4', '3']


class SevenPairs(BaseDataset):
    """Pairs of an image and a label map, without a library of its own."""

    METAINFO = {'classes': ('a', 'b')}

    def load_data_list(self):
        stems = [f'{self.data_root}/{index}' for index in range(7)]
        return [{'img_path': f'{stem}.jpg', 'seg_map_path': f'{stem}.png'} for stem in stems]


def _two_processes(rank: int, root: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{root}/store', rank=rank, world_size=2
    )
    dataset = SevenPairs(data_root=str(root))
    share = range(rank, len(dataset), 2)
    found = DataCheckHook()._inspect(dataset, nn.Module(), share)
    (root / f'{rank}.count').write_text(str(found.label_maps))
    (root / f'{rank}.txt').write_text(error_of(dataset))
    torch.distributed.destroy_process_group()


class CountingModel(BaseModel):
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        type(self).steps += 1
        return {'loss': self.weight.sum()} if mode == 'loss' else [BaseDataElement()]


class TestInTheRunner:
    @pytest.fixture
    def runner(self, tmp_path, monkeypatch):
        """Trains one iteration on one good image and validates on another."""
        monkeypatch.setattr(CountingModel, 'steps', 0)
        train = TestSegmentation.dataset(tmp_path / 'train', {'a': labels()})
        val = TestSegmentation.dataset(tmp_path / 'val', {'b': labels()})
        for dataset in (train, val):
            dataset.pipeline = lambda info: {'inputs': torch.zeros(1)}
        loader = {'batch_size': 1, 'num_workers': 0, 'sampler': {'type': 'DefaultSampler'}}
        return Runner(
            model=CountingModel(),
            work_dir=str(tmp_path / 'work'),
            train_dataloader={'dataset': train, **loader},
            val_dataloader={'dataset': val, **loader},
            train_cfg={'by_epoch': False, 'max_iters': 1},
            val_cfg={},
            val_evaluator={'type': 'DumpResults', 'out_file_path': str(tmp_path / 'out.pkl')},
            optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
            custom_hooks=[{'type': 'mmwave.DataCheckHook'}],
            experiment_name=tmp_path.name,
        )

    def test_good_data_trains(self, runner):
        runner.train()
        assert CountingModel.steps == 2

    @pytest.mark.parametrize('mode', ['train', 'val'])
    def test_nothing_runs_on_bad_data(self, runner, tmp_path, mode):
        name = {'train': 'a', 'val': 'b'}[mode]
        write_labels(tmp_path / mode / 'ann' / f'{name}.png', labels(200))
        with pytest.raises(DataError, match=f'^{mode} data, .*labels 200'):
            runner.train()
        assert CountingModel.steps == 0

    def test_each_data_set_is_looked_at_once(self, runner, monkeypatch):
        seen = []
        inspect = DataCheckHook._inspect
        monkeypatch.setattr(
            DataCheckHook, '_inspect', lambda *args: seen.append(args[1]) or inspect(*args)
        )
        runner.train()
        assert seen == [runner.train_dataloader.dataset, runner.val_dataloader.dataset]

    def test_registered(self):
        assert HOOKS.get('DataCheckHook') is DataCheckHook


@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason='MMWAVE_DATA does not name the folder of real data')
class TestRealData:
    def test_coco(self):
        from mmdet.datasets import CocoDataset

        for split, boxes in (('train', 977), ('val', 310)):
            dataset = CocoDataset(
                data_root=f'{DATA}/coco_mini',
                ann_file=f'annotations/instances_{split}2017.json',
                data_prefix={'img': f'{split}2017/'},
            )
            assert check(dataset, split)[-1].endswith(f', {boxes} boxes')

    def test_ade(self):
        from mmseg.datasets import ADE20KDataset

        for split in ('training', 'validation'):
            prefix = {'img_path': f'images/{split}', 'seg_map_path': f'annotations/{split}'}
            root = f'{DATA}/ade_like'
            dataset = ADE20KDataset(data_root=root, data_prefix=prefix, reduce_zero_label=True)
            assert check(dataset)[-1].endswith(f'{len(dataset)} label maps read')

    def test_cityscapes(self):
        from mmseg.datasets import CityscapesDataset

        for split in ('train', 'val'):
            prefix = {'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'}
            root = f'{DATA}/street_seg/camvid_cityscapes'
            dataset = CityscapesDataset(data_root=root, data_prefix=prefix)
            assert check(dataset)[-1].endswith(f'{len(dataset)} label maps read')

    def test_flowers(self):
        from mmpretrain.datasets import CustomDataset

        for split, samples in (('train', 400), ('val', 100)):
            root = f'{DATA}/imagenet_like/flowers5'
            dataset = CustomDataset(data_root=root, data_prefix=split)
            assert f'{samples} samples' in check(dataset, net=model(head=head(5)))[-1]
