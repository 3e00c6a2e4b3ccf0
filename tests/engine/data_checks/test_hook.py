"""The hook in a run, in several processes and on real data."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook, spaced
from mmwave.errors import UserError
from mmwave.registry import HOOKS

from .building import (
    check,
    error_of,
    head,
    labels,
    model,
    segmentation_data,
    segmentation_steps,
    write_image,
    write_labels,
)

DATA = os.environ.get('MMWAVE_DATA')


def test_spaced():
    assert list(spaced(range(1, 100, 3), None)) == list(range(1, 100, 3))
    assert list(spaced(range(5), 5)) == [0, 1, 2, 3, 4]
    assert list(spaced(range(101), 3)) == [0, 50, 100]


@pytest.mark.parametrize('name', ['max_files', 'max_images', 'max_headers', 'num_threads'])
def test_bad_settings(name):
    with pytest.raises(UserError, match=f'{name} must be .*at least 1, got 0'):
        DataCheckHook(**{name: 0})
    for wrong in (-1, 2.5, True, '3'):
        with pytest.raises(UserError, match=f'max_broken_images must be at least 0, got {wrong}'):
            DataCheckHook(max_broken_images=wrong)
    assert DataCheckHook(max_broken_images=0).max_broken_images == 0


def test_data_sets_of_other_libraries():
    check(torch.utils.data.TensorDataset(torch.zeros(3)))
    assert '0 images found' in error_of(torch.utils.data.TensorDataset(torch.zeros(0)))


@pytest.mark.dist
def test_each_does_its_share_and_all_say_the_same(tmp_path):
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
    dataset = SevenPairs(data_root=str(root), pipeline=segmentation_steps())
    share = range(rank, len(dataset), 2)
    found = DataCheckHook()._inspect(dataset, nn.Module(), share)
    (root / f'{rank}.count').write_text(str(found.label_maps))
    (root / f'{rank}.txt').write_text(error_of(dataset))
    torch.distributed.destroy_process_group()


def remap(sample):
    """Make 0 and 1 of 0 and 200."""
    return sample | {'gt_seg_map': sample['gt_seg_map'] // 200}


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
        """Train one iteration on one good image and validate on another."""
        monkeypatch.setattr(CountingModel, 'steps', 0)
        settings = {'pipeline': [*segmentation_steps(), {'type': 'mmseg.PackSegInputs'}]}
        train = segmentation_data(tmp_path / 'train', {'a': labels()}, **settings)
        val = segmentation_data(tmp_path / 'val', {'b': labels()}, **settings)
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

    def test_maps_that_a_step_remaps_train(self, runner, tmp_path):
        """The values of the files are not those that the model sees."""
        for mode, name in (('train', 'a'), ('val', 'b')):
            write_labels(tmp_path / mode / 'ann' / f'{name}.png', labels(0, 200))
            loader = getattr(runner, f'{mode}_dataloader')
            loader.dataset.pipeline.transforms.insert(2, remap)
        runner.train()
        assert CountingModel.steps == 2

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
            dataset = ADE20KDataset(
                data_root=root,
                data_prefix=prefix,
                reduce_zero_label=True,
                pipeline=segmentation_steps(),
            )
            assert check(dataset)[-1].endswith(f'{len(dataset)} label maps read')

    def test_cityscapes(self):
        from mmseg.datasets import CityscapesDataset

        for split in ('train', 'val'):
            prefix = {'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'}
            root = f'{DATA}/street_seg/camvid_cityscapes'
            steps = segmentation_steps()
            dataset = CityscapesDataset(data_root=root, data_prefix=prefix, pipeline=steps)
            assert check(dataset)[-1].endswith(f'{len(dataset)} label maps read')

    def test_flowers(self):
        from mmpretrain.datasets import CustomDataset

        for split, samples in (('train', 400), ('val', 100)):
            root = f'{DATA}/imagenet_like/flowers5'
            dataset = CustomDataset(data_root=root, data_prefix=split)
            assert f'{samples} samples' in check(dataset, net=model(head=head(5)))[-1]
