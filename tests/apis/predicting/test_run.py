"""Whole calls: what is written where, what is skipped, what is said."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mmwave.apis import UsageError, load, predict
from mmwave.apis.predicting import model as model_module
from mmwave.apis.predicting.run import NothingPredictedError
from mmwave.apis.predicting.videos import whole_video
from mmwave.errors import UserError

TASKS = ('classification', 'detection', 'instances', 'segmentation')


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Two pictures of one name, a small one, a broken one and a clip of three frames."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'in'
    for name, size in (('x/a.png', (64, 64)), ('y/a.jpg', (48, 80)), ('y/tiny.png', (20, 24))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    (folder / 'y/broken.png').write_bytes(b'noise' * 50)
    with whole_video(folder / 'clip.mp4', 10) as writer:
        for _ in range(3):
            writer.add(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    return folder


class Screen:
    """What a call said."""

    def __init__(self):
        self.steps, self.lines = [], []

    def call(self, task, given, out, **options):
        return predict(
            task.config,
            task.weights,
            [str(path) for path in given],
            out=str(out),
            device='cpu',
            cfg_options=task.options,
            on_progress=lambda *numbers: self.steps.append(numbers),
            on_warning=self.lines.append,
            **options,
        )


@pytest.fixture
def screen():
    return Screen()


def files(out):
    return {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()}


@pytest.mark.parametrize('name', TASKS)
def test_everything_is_written_once(tiny, inputs, tmp_path, screen, name):
    task, out = tiny(name), tmp_path / 'out'
    done = screen.call(task, [inputs], out, batch=2)
    assert (done.pictures, done.frames) == (3, 3)
    wanted = {f'pictures/{n}.jpg' for n in ('x/a', 'y/a', 'y/tiny')} | {'videos/clip.mp4'}
    if name == 'segmentation':
        wanted |= {f'labels/{n}.png' for n in ('x/a', 'y/a', 'y/tiny')}
        wanted |= {f'labels/clip.mp4/{i:06}.png' for i in range(3)}
    data = 'predictions.csv' if name == 'classification' else 'predictions.jsonl'
    assert files(out) == wanted | {data}
    assert done.skipped == {str(inputs / 'y/broken.png'): 'of no known image format'}
    assert [line for line in screen.lines if 'broken.png is skipped: of no known' in line]
    assert screen.steps[0][0] == 0
    assert screen.steps[-1] == (6, 6)
    assert [done for done, _ in screen.steps] == list(range(7))
    for path in out.rglob('*.jpg'):
        assert Image.open(path).size[0] > 8
    lines = done.summary().splitlines()
    assert lines[0].startswith('3 images, 3 frames, ')
    assert lines[0].endswith(f' s each -> {out}')
    assert ' 1 skipped,' in lines[0]
    assert {line.split()[0].rstrip('/') for line in lines[1:]} == {
        path.split('/')[0] for path in files(out)
    }


def test_label_maps_and_shares_are_what_the_model_returns(tiny, inputs, tmp_path, screen):
    task, out = tiny('segmentation'), tmp_path / 'out'
    screen.call(task, [inputs / 'x', inputs / 'y/a.jpg'], out)
    documents = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    model = load(task.config, task.weights, device='cpu')
    for document in documents:
        (sample,) = model(document['file'])
        labels = sample.pred_sem_seg.data[0].numpy()
        found = Image.open(out / document['labels'])
        assert np.array_equal(np.asarray(found), labels)
        assert labels.shape == (document['height'], document['width'])
        assert tuple(found.getpalette()[:3]) == model.palette[0]
        shares = {c: float((labels == i).mean()) for i, c in enumerate(model.classes)}
        assert document['shares'] == pytest.approx({c: s for c, s in shares.items() if s})


def test_scores_are_what_the_model_returns(tiny, inputs, tmp_path, screen):
    task, out = tiny('classification'), tmp_path / 'out'
    screen.call(task, [inputs / 'x', inputs / 'y/a.jpg'], out)
    with open(out / 'predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    model = load(task.config, task.weights, device='cpu')
    assert len(rows) == 4  # there are two classes
    for row in rows:
        (sample,) = model(row['file'])
        assert float(row['score']) == sample.pred_score[int(row['label'])].item()
        assert row['class'] == model.classes[int(row['label'])]


@pytest.mark.parametrize('name', ['detection', 'instances'])
def test_coco_results_have_all_objects_and_the_threshold_counts_and_draws(
    tiny, inputs, tmp_path, screen, name
):
    task, out = tiny(name), tmp_path / 'out'
    given = [inputs / 'x', inputs / 'clip.mp4']
    done = screen.call(task, given, out, json='coco', thr=0.0)
    assert files(out) == {*('pictures/a.jpg', 'videos/clip.mp4', 'predictions.json', 'images.json')}
    truth = COCO(str(out / 'images.json'))
    found = truth.loadRes(str(out / 'predictions.json')).anns.values()
    assert len(found) == done.objects > 0
    assert all(('segmentation' in one) for one in found)  # loadRes makes one of a box
    images = [truth.imgs[i] for i in truth.getImgIds()]
    assert [(Path(i['file_name']).name, i.get('frame')) for i in images] == [
        *(('a.png', None), ('clip.mp4', 0), ('clip.mp4', 1), ('clip.mp4', 2))
    ]
    model = load(task.config, task.weights, device='cpu', cfg_options=task.options)
    (sample,) = model(inputs / 'x/a.png')
    wanted = sorted(sample.pred_instances.scores.tolist())
    assert sorted(one['score'] for one in found if one['image_id'] == 1) == wanted
    none = screen.call(task, given, out, json='coco', thr=1.0, overwrite=True)
    assert none.objects == 0
    assert len(json.loads((out / 'predictions.json').read_text())) == len(found)


def test_what_gets_lost_is_said_once(tiny, inputs, tmp_path, screen):
    for index in range(7):
        Image.new('RGBA', (40, 40), (1, 2, 3, 4)).save(inputs / f'x/clear{index}.png')
    given = [inputs / 'x', inputs / 'y/tiny.png']
    done = screen.call(tiny('classification'), given, tmp_path / 'out', batch=4)
    assert done.pictures == len(list((tmp_path / 'out/pictures').iterdir())) == 9
    (clear,) = [line for line in screen.lines if 'transparency' in line]
    assert 'clear0.png' in clear
    assert clear.endswith('and 2 more')
    (small,) = [line for line in screen.lines if 'too small for the backbone' in line]
    assert 'tiny.png' in small
    assert 'a.png' not in small


def test_nothing_that_can_be_read(tiny, inputs, tmp_path, screen):
    (inputs / 'bad.mp4').write_bytes(b'x')
    given = [inputs / 'y/broken.png', inputs / 'bad.mp4']
    with pytest.raises(NothingPredictedError, match=r'nothing could be read of 2 inputs: .*broken'):
        screen.call(tiny('classification'), given, tmp_path / 'out')
    assert NothingPredictedError.exit_code == 1
    assert len(screen.lines) == 2
    assert not files(tmp_path / 'out')


def test_a_step_that_refuses_every_picture_raises_its_error(tiny, tmp_path, screen):
    task = tiny('classification')
    cv2.imwrite(str(tmp_path / 'line.png'), np.zeros((1, 5000, 3), np.uint8))
    options = {
        'test_dataloader.dataset.pipeline': [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(8, 8), keep_ratio=True),
            dict(type='PackInputs'),
        ]
    }
    task = task._replace(options=options)
    with pytest.raises(cv2.error):
        screen.call(task, [tmp_path / 'line.png'], tmp_path / 'out')
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 40, 3), np.uint8))
    done = screen.call(task, [tmp_path / 'line.png', tmp_path / 'a.png'], tmp_path / 'out')
    assert done.pictures == 1
    assert 'Resize raised' in done.skipped[str(tmp_path / 'line.png')]


def test_what_is_refused_comes_before_the_weights(tiny, inputs, tmp_path, screen, monkeypatch):
    def no_weights(*_, **__):
        raise AssertionError('weights are read')

    monkeypatch.setattr(model_module, 'read_checkpoint', no_weights)
    task = tiny('segmentation')
    with pytest.raises(UsageError, match='--json coco is for detectors: segmentation is written'):
        screen.call(task, [inputs], tmp_path / 'out', json='coco')
    with pytest.raises(UsageError, match='--thr 7'):
        screen.call(task, [inputs], tmp_path / 'out', thr=7)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'--out .*file/out cannot be written'):
        screen.call(task, [inputs], tmp_path / 'file/out')


def test_earlier_results_are_replaced_only_when_asked(tiny, inputs, tmp_path, screen):
    task, out = tiny('classification'), tmp_path / 'out'
    screen.call(task, [inputs / 'x'], out)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    with pytest.raises(UsageError, match=r'has results already \(pictures, predictions\.csv\)'):
        screen.call(task, [inputs / 'x'], out)
    assert before == {name: (out / name).stat().st_mtime_ns for name in files(out)}
    screen.call(task, [inputs / 'x'], out, overwrite=True)
    assert all((out / name).stat().st_mtime_ns > then for name, then in before.items())
