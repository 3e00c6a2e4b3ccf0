"""The images of a batch, by their paths."""

from types import SimpleNamespace

import torch

from mmwave.engine.batches import describe_images, image_paths


def test_paths_are_found_in_batches_of_every_form():
    samples = [SimpleNamespace(img_path=f'{i}.png') for i in range(3)]
    batch = dict(inputs=[torch.zeros(1)], data_samples=samples)
    assert image_paths(batch) == ['0.png', '1.png', '2.png']
    branches = dict(inputs=dict(a=[]), data_samples=dict(a=samples[:1], b=samples[1:]))
    assert image_paths(branches) == ['0.png', '1.png', '2.png']
    assert image_paths([dict(img_path='x.png'), dict(img_path='x.png')]) == ['x.png']
    assert image_paths(None) == image_paths(torch.zeros(2)) == []


def test_five_are_shown_and_all_are_counted():
    assert describe_images([]) == ''
    assert describe_images(['a\n.png']) == '1 image: a\\n.png'
    shown = describe_images(f'{i}.png' for i in range(7))
    assert shown == '7 images: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more'
