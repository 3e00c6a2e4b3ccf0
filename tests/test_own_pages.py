"""The commands of ``docs/own-*.md`` run in their order, from data to a prediction."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmwave.apis.config_names import config_files, find_config
from mmwave.cli.program import COMMANDS, parser
from tests.contracts import ROOT
from tests.faults.tasks import write_task
from tests.own_data import label_map, write_coco, write_folders, write_masks

CLASSES = ('daisy', 'roses', 'tulips')  # as the page on folders calls them
DATA = os.environ.get('MMWAVE_DATA')
PAGES = ('own-boxes', 'own-masks', 'own-folders')
TASKS = dict(zip(PAGES, ('detection', 'segmentation', 'classification'), strict=True))
PAGE = pytest.mark.parametrize('page', PAGES)
BLOCK = re.compile(r'```bash\n(.*?)```', re.DOTALL)
WEIGHTS = re.compile(r'(?:epoch|iter)_\d+\.pth')
METRIC = re.compile('bbox_mAP|mIoU|accuracy/top1')
WORDS = ('init', 'check', 'train', 'test', 'predict')


def commands(page):
    text = (ROOT / f'docs/{page}.md').read_text()
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def call(words):
    """Run a command in this process; one that is not part of the program yet is passed over."""
    if words[1] not in COMMANDS:
        return
    args = parser().parse_args(words[1:])
    if isinstance(getattr(args, 'config', None), str):
        args.config = find_config(args.config)
    assert not COMMANDS[args.command].main(args)


def walk(page, base, settings):
    """Run a page's commands with a base in place of the shipped one, and these settings."""
    for words in commands(page):
        if words[1] == 'init':
            words[2] = base
            words += ['--weights', 'none']
        elif words[1] in ('check', 'train', 'test') and settings:
            known = words.index('--cfg-options') + 1 if '--cfg-options' in words else None
            words = words[:known] + ([] if known else ['--cfg-options']) + settings
        call([WEIGHTS.sub(_newest, word) for word in words])


def _newest(_):
    return max(Path().glob('work_dirs/*/*_*.pth'), key=lambda path: path.stat().st_mtime).name


@PAGE
def test_a_page_leads_from_data_to_a_prediction(page):
    words = [command[1] for command in commands(page)]
    assert list(dict.fromkeys(words)) == list(WORDS)
    assert commands(page)[0][2] in config_files()


@PAGE
def test_the_walk(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = write_task(tmp_path / 'base', TASKS[page], length=1)
    data = tmp_path / 'data'
    data.mkdir()
    for split in ('train', 'val'):
        write_coco(data / f'{split}.json', names=CLASSES)
        write_masks(data, split, label_map(0, 1, 2), label_map(0, 1, 255))
        write_folders(data, split, dict.fromkeys(CLASSES, 2))
    (data / 'classes.txt').write_text('\n'.join(CLASSES))
    settings = ['default_hooks.checkpoint.interval=1', 'train_cfg.max_epochs=1']
    if page == 'own-boxes':  # scores of a detector of a few steps are next to nothing
        settings.append('model.test_cfg.score_thr=0.0')
    walk(page, str(base), settings)
    name = page.removeprefix('own-')
    cfg = Config.fromfile(f'{name}.py')
    assert tuple(cfg.test_dataloader.dataset.metainfo.classes) == CLASSES
    assert list(tmp_path.glob(f'work_dirs/{name}/epoch_1.pth'))
    notes = [path.read_text() for path in tmp_path.glob(f'work_dirs/{name}/*/*.json')]
    assert any(METRIC.search(text) for text in notes)


def test_masks_in_colours_are_converted(tmp_path):
    text = (ROOT / 'docs/own-masks.md').read_text()
    (snippet,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    scope = {}
    exec(snippet, scope)  # noqa: S102  our own page
    (tmp_path / 'classes.txt').write_text('road 128 64 128\ntraffic light 0 0 9\n')
    colours = np.array([[[0, 0, 9], [128, 64, 128], [1, 2, 3]]], np.uint8)
    (tmp_path / 'in').mkdir()
    Image.fromarray(colours).save(tmp_path / 'in/a.png')
    scope['convert'](tmp_path / 'in', tmp_path / 'out', tmp_path / 'classes.txt')
    assert np.asarray(Image.open(tmp_path / 'out/a.png')).tolist() == [[1, 0, 255]]


SMALL = {
    'own-boxes': [
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.indices=4',
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
        *(f'{s}_dataloader.dataset.pipeline.1.scale=(128,128)' for s in ('val', 'test')),
    ],
    'own-masks': [
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2'),
        'default_hooks.checkpoint.interval=2',
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
        'train_dataloader.dataset.pipeline.3.crop_size=(96,96)',
        *(f'{s}_dataloader.dataset.pipeline.1.scale=(128,128)' for s in ('val', 'test')),
    ],
    'own-folders': [
        *('train_cfg.max_epochs=1', 'train_dataloader.batch_size=2'),
        'train_dataloader.dataset.indices=4',
    ],
}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason='MMWAVE_DATA does not name the folder of real data')
@PAGE
def test_the_walk_over_photographs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, data = Path(DATA).resolve(), tmp_path / 'data'
    data.mkdir()
    links = {}
    for split in ('train', 'val'):
        coco, street = root / 'coco_mini', root / 'street_seg/comma10k_mini'
        if page == 'own-boxes':
            links[f'{split}.json'] = coco / f'annotations/instances_{split}2017.json'
            links[split] = coco / f'{split}2017'
        elif page == 'own-masks':
            links |= {
                f'images/{split}': street / f'img_dir/{split}',
                f'masks/{split}': street / f'ann_dir/{split}',
            }
        else:
            links[split] = root / f'imagenet_like/flowers5/{split}'
    for name, target in links.items():
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).symlink_to(target)
    (data / 'classes.txt').write_text('road\nlane\nundrivable\nmovable\nmy car\n')
    few = [f'{s}_dataloader.dataset.indices=2' for s in ('val', 'test')]
    loaders = [f'{s}_dataloader.num_workers=0' for s in ('train', 'val', 'test')]
    walk(page, commands(page)[0][2], [*SMALL[page], *few, *loaders, f'visualizer.name={page}'])
