"""Broken images that training meets are skipped, counted once and named; too many end it."""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import BaseDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmwave.apis.failures import failure_of
from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook
from mmwave.engine.data_checks.skipping import (
    LIST_NAME,
    BrokenImageError,
    BrokenList,
    name_broken_image,
    skip_broken_images,
)

from .building import detection_data, labels, segmentation_data
from .test_image_sample import HTML, LOAD, images


def names_of(dataset, **settings) -> list[str]:
    """Load all samples; return the base names of what came instead of each."""
    loader = DataLoader(dataset, batch_size=None, collate_fn=lambda sample: sample, **settings)
    return [Path(sample['img_path']).name for sample in loader]


def guarded(dataset, root: Path, most: int = 10) -> BrokenList:
    broken = BrokenList(root / LIST_NAME, most)
    skip_broken_images(dataset, broken)
    return broken


@pytest.mark.parametrize(
    'workers', [{}, {'num_workers': 2}, {'num_workers': 2, 'persistent_workers': True}]
)
def test_another_sample_is_taken_and_the_file_listed_once(tmp_path, workers):
    dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': b''})
    broken = guarded(dataset, tmp_path)
    for _ in range(2):
        names = names_of(dataset, **workers)
        assert len(names) == 5
        assert names[:3] == ['good0.jpg', 'good1.jpg', 'good2.jpg']
        assert not {'a.jpg', 'b.jpg'} & set(names)
    listed = (tmp_path / LIST_NAME).read_text().splitlines()
    assert sorted(listed) == [
        f'{tmp_path}/a.jpg\ta web page or other text',
        f'{tmp_path}/b.jpg\tempty',
    ]
    assert sorted(broken.news()) == sorted(listed)
    assert broken.news() == []


@pytest.mark.parametrize('num_workers', [0, 2])
def test_one_too_many_ends_in_one_line(tmp_path, num_workers):
    dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': b''})
    guarded(dataset, tmp_path, most=1)
    with pytest.raises(BrokenImageError) as caught:
        names_of(dataset, num_workers=num_workers)
    message = str(caught.value)
    assert '\n' not in message
    assert message.startswith(
        '2 image files cannot be read, more than max_broken_images=1 allows: '
    )
    assert f'{tmp_path}/a.jpg (a web page or other text)' in message
    assert f'{tmp_path}/b.jpg (empty)' in message
    assert f'{tmp_path}/{LIST_NAME} lists' in message


def test_a_vanished_file_is_one_of_them(tmp_path):
    dataset = images(tmp_path, {})
    guarded(dataset, tmp_path)
    (tmp_path / 'good1.jpg').unlink()
    assert len(names_of(dataset)) == 3
    expected = f'{tmp_path}/good1.jpg\tNo such file or directory\n'
    assert (tmp_path / LIST_NAME).read_text() == expected


def test_a_data_set_that_is_sent_to_a_spawned_worker_lists_its_files_too(tmp_path):
    dataset = images(tmp_path, {'a.jpg': HTML})
    broken = guarded(dataset, tmp_path)
    sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301  our own
    assert sent.prepare_data.dataset is sent
    assert 'a.jpg' not in names_of(sent)
    assert len(broken.entries()) == 1


@pytest.mark.parametrize(('num_workers', 'test_mode'), [(0, False), (2, True)])
def test_an_evaluation_ends_with_the_name_of_the_file(tmp_path, num_workers, test_mode):
    dataset = images(tmp_path, {'a.jpg': HTML}, test_mode=test_mode)
    name_broken_image(dataset)
    with pytest.raises(BrokenImageError) as caught:
        names_of(dataset, num_workers=num_workers)
    expected = f'{tmp_path}/a.jpg cannot be read (a web page or other text): metrics without it'
    assert str(caught.value).startswith(expected)


class Theirs(BaseTransform):
    """A step of the user's own that raises for one image."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def transform(self, results):
        if results['img_path'].endswith('good1.jpg'):
            raise self.error
        return results


class Background(BaseTransform):
    """A step of the user's own that reads another image, which is not there."""

    def transform(self, results):
        LoadImageFromFile()({'img_path': 'nothing.jpg'})


@pytest.mark.parametrize(
    'step',
    [
        *map(Theirs, (OSError('theirs'), AssertionError('failed to load image'), ValueError())),
        Background(),
    ],
)
def test_errors_of_the_user_s_steps_are_raised(tmp_path, step):
    dataset = images(tmp_path, {})
    dataset.pipeline = Compose([LoadImageFromFile(), step])
    guarded(dataset, tmp_path)
    kind = type(step.error) if isinstance(step, Theirs) else FileNotFoundError
    with pytest.raises(kind):
        names_of(dataset)
    assert not (tmp_path / LIST_NAME).exists()


@pytest.mark.parametrize('num_workers', [0, 2])
def test_an_error_of_a_step_names_the_image(tmp_path, num_workers):
    dataset = images(tmp_path, {})
    dataset.pipeline = Compose([LoadImageFromFile(), Theirs(ZeroDivisionError('theirs'))])
    guarded(dataset, tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        names_of(dataset, num_workers=num_workers)
    expected = f'ZeroDivisionError: theirs; at the image {tmp_path}/good1.jpg'
    assert failure_of(caught.value).what == expected


def test_a_pipeline_that_is_switched_during_training(tmp_path):
    dataset = images(tmp_path, {'a.jpg': HTML})
    broken = guarded(dataset, tmp_path)
    dataset.pipeline = Compose([LoadImageFromFile()])
    assert len(names_of(dataset)) == 4
    assert len(broken.entries()) == 1


def test_detection_and_segmentation(tmp_path):
    detection = detection_data(tmp_path / 'd', [{}], num_images=4, pipeline=[LOAD])
    maps = {name: labels() for name in 'abcd'}
    segmentation = segmentation_data(tmp_path / 's', maps, pipeline=[LOAD])
    for dataset, path in (
        (detection, tmp_path / 'd/2.jpg'),
        (segmentation, tmp_path / 's/img/b.jpg'),
    ):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        broken = guarded(dataset, path.parent)
        names = names_of(dataset)
        assert len(names) == 4
        assert path.name not in names
        assert broken.entries() == [f'{path}\ta JPEG without its end']


def test_inside_of_wrappers(tmp_path):
    """As the hook does it: each data set inside is unwrapped."""
    from mmdet.datasets import MultiImageMixDataset
    from mmengine.dataset import ClassBalancedDataset
    from mmengine.registry import DefaultScope

    def build(name):
        return images(tmp_path / name, {'a.jpg': HTML, 'b.jpg': b''})

    wrappers = [
        RepeatDataset(build('r'), times=2),
        ConcatDataset([build('c1'), build('c2')]),
        ClassBalancedDataset(build('b'), oversample_thr=1e-3),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        mosaic = [{'type': 'Mosaic', 'img_scale': (16, 16)}]
        inner = detection_data(
            tmp_path / 'm', [{}], num_images=6, pipeline=[LOAD, {'type': 'LoadAnnotations'}]
        )
        wrappers.append(MultiImageMixDataset(inner, mosaic))
    (tmp_path / 'm/1.jpg').write_bytes(HTML)
    (tmp_path / 'm/4.jpg').write_bytes(b'')
    for wrapper in wrappers:
        hook, warnings = DataCheckHook(), []
        logger = SimpleNamespace(info=str, warning=warnings.append)
        runner = SimpleNamespace(
            train_dataloader=SimpleNamespace(dataset=wrapper),
            model=torch.nn.Module(),
            val_loop=None,
            logger=logger,
            log_dir=str(tmp_path),
        )
        hook.before_train(runner)
        before = len(warnings)
        loaded = [wrapper[index] for index in range(len(wrapper))]
        assert all(sample is not None for sample in loaded)
        hook.after_train_iter(runner, 0)
        new = warnings[before:]
        number = 4 if isinstance(wrapper, ConcatDataset) else 2
        assert len(new) == number, new
        assert all(re.match(r'skipped, cannot be read: \S+ \(.+\); at most 10 may', n) for n in new)
        (tmp_path / LIST_NAME).unlink()


def test_nothing_changes_where_no_image_is_broken(tmp_path):
    """The same random numbers are drawn, the same samples come."""

    def run(guard: bool):
        np.random.seed(0)
        dataset = images(tmp_path, {}, pipeline=[LOAD, {'type': 'RandomFlip', 'prob': 0.5}])
        if guard:
            guarded(dataset, tmp_path)
        flips = [dataset[index].get('flip') for index in range(3) for _ in range(8)]
        return flips, np.random.rand()

    assert run(True) == run(False)


class OwnWay(BaseDataset):
    """A data set with a way of its own from index to sample."""

    def load_data_list(self):
        return [{'img_path': 'nothing.jpg'}]

    def __getitem__(self, index):
        return self.prepare_data(index)


def test_a_data_set_that_takes_no_other_sample_skips_nothing(tmp_path):
    dataset = OwnWay(pipeline=[LoadImageFromFile()])
    guarded(dataset, tmp_path)
    with pytest.raises(FileNotFoundError):
        dataset[0]
    guarded(torch.utils.data.TensorDataset(torch.zeros(3)), tmp_path)


def test_the_list_holds_a_name_once_whatever_is_in_it(tmp_path):
    broken = BrokenList(tmp_path / 'list', most=2)
    for name in ('a\tb\n.jpg', 'c.jpg', 'a\tb\n.jpg'):
        broken.add(name, 'x\ty')
    assert broken.entries() == ['a\\tb\\n.jpg\tx\\ty', 'c.jpg\tx\\ty']
    with pytest.raises(BrokenImageError, match=r'^3 image files .*d\.jpg \(z\); mend'):
        broken.add('d.jpg', 'z')


def test_it_is_no_error_of_the_data_beforehand():
    assert not issubclass(BrokenImageError, DataError)


class Sees(BaseModel):
    """A model that stores what it is trained on."""

    seen: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        self.seen.append(Path(inputs[0]).name)
        return {'loss': self.weight.sum()}


def path_alone(info):
    """Stand for a pipeline whose sample is its path."""
    return {'inputs': info['img_path']}


def runner_of(root: Path, num_workers: int, settings: dict, **hook) -> Runner:
    dataset = images(root, {'a.jpg': HTML, 'b.jpg': b''})
    dataset.pipeline.transforms.append(path_alone)
    return Runner(
        model=Sees(),
        work_dir=str(root / 'work'),
        train_dataloader={
            'dataset': dataset,
            'batch_size': 1,
            'num_workers': num_workers,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        train_cfg=settings,
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        custom_hooks=[{'type': 'mmwave.DataCheckHook', **hook}],
        experiment_name=f'{root.name}-{num_workers}',
    )


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize(
    'settings', [{'by_epoch': True, 'max_epochs': 2}, {'by_epoch': False, 'max_iters': 10}]
)
class TestInTheRunner:
    def test_good_images_alone_are_trained_on(self, tmp_path, monkeypatch, settings, num_workers):
        monkeypatch.setattr(Sees, 'seen', [])
        runner = runner_of(tmp_path, num_workers, settings)
        runner.train()
        assert len(Sees.seen) == 10
        assert set(Sees.seen) == {'good0.jpg', 'good1.jpg', 'good2.jpg'}
        listed = Path(runner.log_dir, LIST_NAME)
        assert len(listed.read_text().splitlines()) == 2
        log = Path(runner.logger.log_file).read_text()
        assert '2 image files cannot be read and will be skipped (max_broken_images=10)' in log
        for text in ('a.jpg (a web page or other text)', 'b.jpg (empty)'):
            line = f'skipped, cannot be read: {tmp_path}/{text}; at most 10 may be (listed in '
            assert log.count(f'{line}{listed})') == 1

    def test_too_many_end_it(self, tmp_path, settings, num_workers):
        """Of which a sample of the headers has seen nothing."""
        # The file that is looked up is the first.
        runner = runner_of(tmp_path, num_workers, settings, max_broken_images=1, max_images=1)
        with pytest.raises(BrokenImageError, match=r'^2 image files cannot be read, more than .*'):
            runner.train()
