"""Images that files are compared on."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmwave.apis import UsageError
from mmwave.export.images import Images, Normalisation, find_images

PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3, 'bgr')


def write(folder, count=2, side=6):
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f'{index}.png'), np.full((side, side, 3), 10 * (index + 1)))
    return folder


@pytest.mark.parametrize('swaps', [False, True])
def test_images_are_normalised_as_the_data_preprocessor_does(swaps):
    model = nn.Module()
    model.data_preprocessor = ImgDataPreprocessor(
        mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=swaps
    )
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    norm = Normalisation.of(model)
    assert norm.channel_order == ('rgb' if swaps else 'bgr')
    raw = torch.from_numpy(picture).permute(2, 0, 1)
    wanted = model.data_preprocessor(dict(inputs=[raw]))['inputs'][0]
    assert torch.allclose(norm(picture), wanted, atol=1e-6)


def test_of_a_model_without_a_preprocessor():
    assert Normalisation.of(nn.ReLU()) == PLAIN


def test_a_folder_goes_first_then_test_data_then_generated_ones(tmp_path):
    mine, theirs = write(tmp_path / 'mine/deeper'), write(tmp_path / 'data/images', count=3)
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path / 'data'), data_prefix=dict(img='images')
    )
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    found = find_images(cfg, str(mine.parent))
    assert found.source == f'2 images of {mine.parent}'
    assert [p[0, 0, 0] for p in found.pictures] == [10, 20]
    assert find_images(cfg, None).source == '3 images of the test data'
    (theirs / 'broken.png').write_text('none')
    assert len(find_images(cfg, None).pictures) == 3
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'elsewhere')
    for without in (cfg, Config({})):
        assert find_images(without, None).source.startswith('generated images')


def test_folders_that_hold_none(tmp_path):
    (tmp_path / 'text.txt').write_text('none')
    for folder in ('', str(tmp_path / 'nowhere'), str(tmp_path / 'text.txt')):
        with pytest.raises(UsageError, match=r'^--images .*: no such folder$'):
            find_images(Config({}), folder)
    with pytest.raises(UsageError, match=r'^--images .*: no image that can be read in it$'):
        find_images(Config({}), str(tmp_path))


def test_a_batch_has_the_size_and_no_image_twice():
    rng = np.random.default_rng(0)
    made = Images('two', [rng.integers(0, 256, (s, 9, 3), dtype=np.uint8) for s in (8, 11)])
    x = made.batch(4, (10, 12), PLAIN)
    assert (x.shape, x.dtype) == ((4, 3, 10, 12), torch.float32)
    assert len({image.sum(dim=0).numpy().tobytes() for image in x}) == 4
