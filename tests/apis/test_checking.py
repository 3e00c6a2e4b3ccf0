"""A config and its data, checked without a training."""

import json

import cv2
import numpy as np
import pytest

from mmwave.apis import check
from mmwave.apis.usage import UsageError
from mmwave.cli.commands.check import show
from tests.faults.tasks import NUM_IMAGES, TASKS, write_task

pytestmark = pytest.mark.usefixtures('own_loader')


@pytest.mark.parametrize('task', TASKS)
def test_data_that_fit(tmp_path, task, capsys):
    report = check(str(write_task(tmp_path, task)), sheets=tmp_path / 'sheets')
    assert report.ok
    assert [data.split for data in report.data] == ['train', 'val', 'test']
    samples = 2 * NUM_IMAGES if task == 'classification' else NUM_IMAGES
    train = report.data[0].found
    assert train.samples == train.images == samples
    assert train.boxes == (NUM_IMAGES if task == 'detection' else None)
    assert train.label_maps == (NUM_IMAGES if task == 'segmentation' else 0)
    assert [path.name for path in report.sheets] == ['train.jpg', 'val.jpg', 'test.jpg']
    assert cv2.imread(str(report.sheets[0])).std() > 0
    show(report)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('OK: the config and 3 data sets fit')


def test_a_broken_image_is_named_where_all_are_decoded(tmp_path, capsys):
    config = write_task(tmp_path)
    path = tmp_path / 'data/train/a/3.png'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(200) + content[-60:])  # whole by its ends
    assert check(str(config), splits=['train']).ok
    report = check(str(config), splits=['train'], open_images=True)
    assert report.ok  # training skips it
    assert str(path) in report.data[0].warnings[0]
    show(report)
    assert f'warning: train: {report.data[0].warnings[0]}' in capsys.readouterr().out


def test_everything_wrong_is_told_at_once(tmp_path, capsys):
    config = write_task(tmp_path, 'segmentation')
    for split in ('0', '7'):
        wrong = np.full((64, 64), 9, np.uint8)
        cv2.imwrite(str(tmp_path / f'data/maps/{split}.png'), wrong)
    report = check(str(config), cfg_options={'model.decode_head.num_classes': 3})
    assert not report.ok
    assert all('9' in data.problems[0] for data in report.data)
    show(report)
    assert capsys.readouterr().out.splitlines()[-1].startswith('3 errors, ')


def test_what_cannot_be_built_is_one_of_the_problems(tmp_path):
    config = write_task(tmp_path, 'detection')
    document = json.loads((tmp_path / 'data/boxes.json').read_text())
    document['annotations'][0]['bbox'] = 'none'
    (tmp_path / 'data/boxes.json').write_text(json.dumps(document))
    report = check(str(config), splits=['train'])
    assert not report.ok
    assert any('bbox' in line for line in report.problems)


def test_a_config_that_cannot_run_is_told_without_data(tmp_path):
    config = write_task(tmp_path)
    report = check(str(config), cfg_options={'data_check': 'often'})
    assert not report.ok
    assert report.data == ()
    assert report.problems[0].startswith("data_check='often' must be True, False or a dict")


def test_an_unknown_split(tmp_path):
    with pytest.raises(UsageError, match='no such split: tset; accepted are train, val, test'):
        check(str(write_task(tmp_path)), splits=['tset'])
