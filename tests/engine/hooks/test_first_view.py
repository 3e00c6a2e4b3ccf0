"""The batch that hooks see behind a test with augmentation."""

import torch

from mmwave.engine.hooks import FirstViewHook


def test_a_batch_of_views_becomes_that_of_the_first():
    images = [torch.full((3, 2, 2), float(i)) for i in range(4)]
    batch = dict(inputs=[images[:2], images[2:]], data_samples=[['a', 'b'], ['a+', 'b+']])
    FirstViewHook().after_test_iter(None, 0, batch, [])
    assert batch == dict(inputs=images[:2], data_samples=['a', 'b'])


def test_other_batches_stay_as_they_are():
    images = [torch.zeros(3, 2, 2)] * 2
    for inputs in (images, torch.stack(images), []):
        batch = dict(inputs=inputs, data_samples=['a', 'b'])
        FirstViewHook().after_test_iter(None, 0, batch, [])
        assert batch['inputs'] is inputs
        assert batch['data_samples'] == ['a', 'b']
    FirstViewHook().after_test_iter(None, 0, None, [])
