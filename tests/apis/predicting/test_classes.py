"""Names and colours of classes: the checkpoint's, else the config's, else numbers."""

from mmengine.config import Config
from torch import nn

from mmwave.apis.predicting.classes import classes_and_palette, colours

NAMES, COLOURS = ('cat', 'dog'), ((1, 2, 3), (4, 5, 6))
OTHERS = ('dog', 'cat')


class Model(nn.Module):
    def __init__(self, number: int | None = 2) -> None:
        super().__init__()
        self.head = nn.Identity()
        if number is not None:
            self.head.num_classes = number


def config(**metainfo) -> Config:
    dataset = dict(type='BaseSegDataset', metainfo=metainfo)
    return Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))


def noted(**meta) -> dict:
    return dict(meta=dict(dataset_meta=meta))


def test_those_of_the_checkpoint_come_first():
    notes = noted(classes=list(NAMES), palette=[list(c) for c in COLOURS])
    assert classes_and_palette(config(), notes, Model()) == (NAMES, COLOURS, [])
    *found, lines = classes_and_palette(
        config(classes=OTHERS, palette=[(7, 7, 7)] * 2), notes, Model()
    )
    assert found == [NAMES, COLOURS]
    assert 'other names of classes than the config states' in lines[0]


def test_older_notes():
    meta = dict(meta=dict(CLASSES=NAMES, PALETTE=COLOURS))
    assert classes_and_palette(config(), meta, Model()) == (NAMES, COLOURS, [])


def test_the_config_s_where_the_checkpoint_has_none_or_another_number():
    stated = config(classes=NAMES, palette=COLOURS)
    for checkpoint in ({}, dict(meta=None), noted(classes=None), noted(classes=['only'])):
        assert classes_and_palette(stated, checkpoint, Model()) == (NAMES, COLOURS, [])


def test_colours_of_the_config_serve_where_the_names_are_the_same():
    stated = config(classes=NAMES, palette=COLOURS)
    assert classes_and_palette(stated, noted(classes=NAMES), Model())[1] == COLOURS
    for other in (config(classes=OTHERS, palette=COLOURS), config()):
        assert classes_and_palette(other, noted(classes=NAMES), Model())[1] == colours(2)


def test_numbers_where_nobody_knows():
    names, palette, lines = classes_and_palette(config(classes=NAMES), {}, Model(3))
    assert names == ('class 0', 'class 1', 'class 2')
    assert palette == colours(3)
    assert lines == ['the model has 3 classes, whose names are unknown (2 in the config)']


def test_a_palette_that_is_none():
    for palette in ('coco', [(1, 2)], [(1, 2, 300), (1, 2, 3)], [(1, 2, 3)]):
        notes = noted(classes=NAMES, palette=palette)
        assert classes_and_palette(config(), notes, Model())[1] == colours(2)


def test_colours_differ():
    assert len(set(colours(150))) == 150
    assert colours(5) == colours(150)[:5]
    # Neighbours far apart: on the circle of hues, and so in at least one channel.
    for one, other in zip(colours(20), colours(20)[1:], strict=False):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 60
