"""What the name of a leaf config says."""

import re

import pytest

from mmwave.errors import UserError
from mmwave.zoo import LeafName


def test_names_tell_family_method_and_size():
    cls, det, seg = map(
        LeafName.parse,
        ('wavemlp-t-dw_in1k', 'a-b_mask-rcnn_1x_coco', 'a-b_upernet_80k_cityscapes-512x1024'),
    )
    assert (cls.family, cls.variant, cls.method, cls.schedule) == ('wavemlp', 't-dw', '', '')
    assert (cls.data, cls.size) == ('in1k', (224, 224))
    assert (det.method, det.schedule, det.data, det.size) == (
        'mask-rcnn',
        '1x',
        'coco',
        (800, 1280),
    )
    assert (seg.schedule, seg.data, seg.size) == ('80k', 'cityscapes', (512, 1024))
    assert cls.recipe == det.recipe == seg.recipe == ''


@pytest.mark.parametrize(
    ('name', 'recipe', 'size'),
    [
        ('fam-t224_in1k-some', 'some', (224, 224)),
        ('fam-t256_in1k', '', (256, 256)),
        ('fam-t256_in1k-320x384', '', (320, 384)),
        ('fam-s16_in1k', '', (224, 224)),
        ('fam-t256_retinanet_1x_coco', '', (800, 1280)),
        ('fam-t256_upernet_80k_ade20k-some-512x512', 'some', (512, 512)),
    ],
)
def test_names_tell_recipe_and_the_size_a_variant_is_called_after(name, recipe, size):
    leaf = LeafName.parse(name)
    assert (leaf.recipe, leaf.size) == (recipe, size)
    assert leaf.data in ('in1k', 'coco', 'ade20k')


@pytest.mark.parametrize(
    ('name', 'family', 'variant'),
    [
        ('mlp-mixer-b16_in1k', 'mlp-mixer', 'b16'),
        ('mlp-mixer-b16_retinanet_1x_coco', 'mlp-mixer', 'b16'),
        ('mlp-t-dw_in1k', 'mlp', 't-dw'),
        ('eamlp-14_in1k', 'eamlp', '14'),
    ],
)
def test_names_tell_families_with_a_hyphen(name, family, variant):
    leaf = LeafName.parse(name)
    assert (leaf.family, leaf.variant, leaf.size[0] in (224, 800)) == (family, variant, True)


@pytest.mark.parametrize(
    'name',
    [
        'wavemlp_in1k',
        'wavemlp-t',
        'wavemlp-t_',
        'mlp-mixer-_in1k',
        'a-b_x_1x_long_coco',
        'a-b_x_1x_ade20k',
        'a-b_ade20k-some',
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=re.escape(name)):
        LeafName.parse(name)
