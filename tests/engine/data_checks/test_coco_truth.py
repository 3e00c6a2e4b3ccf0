"""CocoMetric gives the right number for files that lack what only it needs."""

import logging
from types import SimpleNamespace

import pytest
from torch import nn

from mmwave.engine.data_checks.coco_form import judge
from mmwave.engine.data_checks.coco_truth import fill_in
from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook

from .building import write_image
from .coco_files import ap_of_truth, coco_metric, data_set, document, write

OUTSIDE = {'bbox': [100, 4, 20, 20]}
LACKING = {
    'id 0': (document({'id': 0}), 'annotation ids'),
    'id false': (document({'id': False}), 'annotation ids'),
    'id is a text': (document({'id': 'a1'}), 'annotation ids'),
    'no iscrowd': (document(without='iscrowd'), "without 'iscrowd'"),
    'iscrowd is null': (document({'iscrowd': None}), "without 'iscrowd'"),
    'iscrowd is a text': (document({'iscrowd': '0'}), "texts as 'iscrowd'"),
    'no area, outside': (document(OUTSIDE, without='area'), "without 'area'"),
}


@pytest.mark.parametrize('case', LACKING)
def test_truth_as_predictions_has_an_ap_of_1(tmp_path, case):
    content, expected = LACKING[case]
    path = write(tmp_path, content)
    metric = coco_metric(path)
    (line,) = fill_in([metric])
    assert line.startswith('filled in for CocoMetric, in memory: 1 ')
    assert expected in line
    assert fill_in([metric]) == []
    assert ap_of_truth(metric, content) == 1
    if case != 'iscrowd is a text':
        assert len(judge(content).filled()) == 1


def test_an_id_that_an_annotation_without_an_image_has_too(tmp_path):
    content = document()
    stranger = content['annotations'][0] | {'image_id': 99, 'bbox': [0, 0, 5, 5]}
    content['annotations'].append(stranger)
    path = write(tmp_path, content)
    assert ap_of_truth(coco_metric(path), content) < 0.9
    metric = coco_metric(path)
    (line,) = fill_in([metric])
    assert '1 annotation ids that stand twice' in line
    assert ap_of_truth(metric, content) == 1


def test_without_it_id_0_is_a_miss(tmp_path):
    content = document({'id': 0})
    assert ap_of_truth(coco_metric(write(tmp_path, content)), content) < 0.9


def test_free_ids_in_every_table(tmp_path):
    content = document({'id': 0})
    content['annotations'][2]['id'] = 'x'
    api = (metric := coco_metric(write(tmp_path, content)))._coco_api
    fill_in([metric])
    ids = [5, 2, 6, 4]
    assert [annotation['id'] for annotation in api.dataset['annotations']] == ids
    assert {key: annotation['id'] for key, annotation in api.anns.items()} == {i: i for i in ids}
    assert api.getAnnIds(imgIds=[1]) == [5, 6]
    assert api.loadAnns([5])[0] is api.imgToAnns[1][0]


def test_good_truth_and_other_metrics_are_left_alone(tmp_path):
    from mmdet.evaluation import CocoMetric, CocoPanopticMetric

    path = write(tmp_path, document())
    assert fill_in([coco_metric(path), CocoMetric(), object()]) == []
    assert CocoPanopticMetric.__name__ != 'CocoMetric'
    path = write(tmp_path, document({'id': 0}))
    assert fill_in([CocoMetric(ann_file=str(path), format_only=True, outfile_prefix='x')]) == []


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
def test_the_hook_fills_in_before_the_loop_and_says_so_once(tmp_path, mode, caplog):
    content = document({'id': 0}, without='iscrowd')
    runner = _runner(tmp_path, content, metric := coco_metric(write(tmp_path, content)))
    hook = DataCheckHook()
    for _ in range(2):
        getattr(hook, f'before_{mode}')(runner)
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == 'WARNING')
    assert "1 annotations without 'iscrowd' (0), 1 annotation ids" in line
    assert ap_of_truth(metric, content) == 1


def test_the_hook_stops_before_training_where_nothing_is_harmless(tmp_path):
    content = document(without='segmentation')
    runner = _runner(tmp_path, content, coco_metric(write(tmp_path, content), 'segm'))
    with pytest.raises(
        DataError, match=r"^val data, .*1 annotations without 'segmentation': id 1$"
    ):
        DataCheckHook().before_train(runner)


def _runner(root, content, metric):
    for image in content['images']:
        write_image(root / image['file_name'])
    path = write(root, content)
    prefix = {'data_prefix': {'img': str(root)}}
    loader, other = (SimpleNamespace(dataset=data_set(path, **prefix)) for _ in range(2))
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))
    logger = logging.getLogger('truth')
    logger.setLevel(logging.INFO)
    return SimpleNamespace(
        log_dir='',
        model=nn.Module(),
        logger=logger,
        val_loop=loop,
        test_loop=loop,
        train_dataloader=other,
        val_dataloader=loader,
        test_dataloader=loader,
    )
