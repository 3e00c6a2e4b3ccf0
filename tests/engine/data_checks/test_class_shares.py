"""What label maps hold of each class is logged; what they or lists of images lack is warned of."""

import numpy as np
import pytest
import torch

from mmwave.engine.data_checks.class_shares import share_line
from mmwave.engine.data_checks.hook import DataCheckHook

from .building import (
    check,
    classification_data,
    error_of,
    head,
    labels,
    model,
    segmentation_data,
)

TWO = {'metainfo': {'classes': ('ground', 'crop')}}
QUARTERS = np.repeat(np.array([0, 1, 1, 255], np.uint8), 48 * 16).reshape(48, 64)


def lines(dataset, mode='train', **settings) -> list[str]:
    """Return what is said of a data set, without its name and the summary."""
    return [record.partition('img): ')[2] for record in check(dataset, mode, **settings)[:-1]]


def test_shares_of_the_classes(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': QUARTERS, 'b': QUARTERS}, **TWO)
    (line,) = lines(dataset)
    assert line == 'pixels of 2 label maps: crop 50 %, ground 25 %; ignored 25 %'


def test_many_classes_take_one_readable_line():
    pixels = np.zeros(256, dtype=np.int64)
    pixels[:40] = 2 ** np.arange(40)
    pixels[255] = pixels.sum()
    classes = [f'c{i}' for i in range(150)]
    line = share_line(pixels, classes, 255)
    assert line.startswith('c39 25 %, c38 13 %, c37 6.3 %')
    assert line.endswith(', 110 of 150 classes have none; ignored 50 %')
    assert 'c0 4.5e-11 %' in line
    assert len(line) < 250
    few = share_line(np.where(pixels < 2**37, 0, pixels), classes, 255)
    assert few.startswith('c39 27 %, c38 13 %, c37 6.7 %, 147 of 150')


def test_masks_of_0_and_255(tmp_path):
    """For two classes they train to an IoU of 0: all that is 255 is ignored."""
    masks = np.where(QUARTERS == 1, 255, 0).astype(np.uint8)
    warning, _ = lines(segmentation_data(tmp_path, {'a': masks}, **TWO))
    assert warning == (
        "1 of 2 classes has no pixel in 1 label maps: 'crop'; label 255 means ignored, as 50 % of "
        'the pixels are; masks of 0 and 255 must be written as 0 and 1'
    )


def test_masks_of_0_and_1_with_reduce_zero_label(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': QUARTERS}, reduce_zero_label=True, **TWO)
    warning, shares = lines(dataset)
    assert warning == (
        "1 of 2 classes has no pixel in 1 label maps: 'crop'; label 0, 255 means ignored (0 by "
        'reduce_zero_label), as 50 % of the pixels are'
    )
    assert shares.endswith('ground 50 %, crop 0 %; ignored 50 %')


def test_classes_that_do_not_occur(tmp_path):
    names = {'metainfo': {'classes': [f'c{i}' for i in range(9)]}}
    dataset = segmentation_data(tmp_path, {str(i): labels(0, 1, 255) for i in range(9)}, **names)
    warning = "of 9 classes have no pixel in 9 label maps: 'c2', 'c3', 'c4', 'c5', 'c6', … and 2"
    # That pixels are ignored is no reason, where others can be learnt from.
    assert lines(dataset)[0] == f'7 {warning} more'
    sampled = lines(dataset, max_files=4)[0]
    assert 'no pixel in 4 label maps that were read of 9: ' in sampled


def test_nothing_but_ignored_pixels(tmp_path):
    nothing = np.full((48, 64), 255, np.uint8)
    dataset = segmentation_data(tmp_path, {'a': nothing, 'b': nothing}, **TWO)
    expected = 'all pixels of 2 label maps are ignored; label 255 means ignored, as 100 % of'
    for mode in ('train', 'val'):
        assert expected in error_of(dataset, mode)
    # The labels of a test set may be secret; maps that were not read may hold some.
    assert expected in lines(dataset, 'test')[0]
    some = lines(dataset, max_files=1)[0]
    assert some.startswith('all pixels of 1 label maps that were read of 2 are ignored')


def test_the_head_says_what_is_ignored(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(0, 1)}, **TWO)
    warning, shares = lines(dataset, net=model(decode_head=head(2, ignore_index=0)))
    assert "no pixel in 1 label maps: 'ground'; label 0 means ignored" in warning
    assert shares.startswith('pixels of 1 label maps: crop 0.033 %, ground 0 %; ignored 100 %')


def test_classes_without_a_sample(tmp_path):
    names = {'metainfo': {'classes': ['a', 'b', 'c']}}
    dataset = classification_data(tmp_path, 'x.jpg 0\ny.jpg 2\nz.jpg 2\n', **names)
    warning, _ = check(dataset)
    assert warning.endswith("1 of 3 classes has no sample: 'b'")
    (_,) = check(dataset, 'val')
    whole = classification_data(tmp_path, 'x.jpg 0\ny.jpg 1\nz.jpg 2\n', **names)
    (_,) = check(whole)


@pytest.mark.dist
def test_shares_of_all_processes_together(tmp_path):
    """Each reads its half; every one of them warns of what no half holds."""
    names = {'metainfo': {'classes': ('a', 'b', 'c')}}
    dataset = segmentation_data(tmp_path, {'0': labels(), '1': labels() + 1}, **names)
    found = [DataCheckHook()._inspect(dataset, model(), range(rank, 2, 2)) for rank in (0, 1)]
    assert [f.pixels[:2].tolist() for f in found] == [[48 * 64, 0], [0, 48 * 64]]
    # Forked, because a fresh interpreter could not import this file under every import mode.
    torch.multiprocessing.start_processes(
        _write_lines, (tmp_path, dataset), nprocs=2, start_method='fork'
    )
    said = [(tmp_path / f'{rank}.txt').read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith(
        "1 of 3 classes has no pixel in 2 label maps: 'c'\npixels of 2 label maps: a 50 %"
    )


def _write_lines(rank, root, dataset):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{root}/store', rank=rank, world_size=2
    )
    (root / f'{rank}.txt').write_text('\n'.join(lines(dataset)))
    torch.distributed.destroy_process_group()
