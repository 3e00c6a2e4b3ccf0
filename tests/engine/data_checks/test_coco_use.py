"""Which faults of a file matter depends on pipeline and metrics, built or in a config."""

from mmdet.datasets.transforms import LoadAnnotations
from mmdet.evaluation import CocoMetric

from mmwave.engine.data_checks.coco_use import Use, in_config, of_built
from mmwave.engine.data_checks.datasets import Place

from .building import coco_file


def test_config_and_built_agree(tmp_path):
    path = str(coco_file(tmp_path))
    for masks in (True, False):
        for kinds in ('bbox', ['bbox', 'segm']):
            settings = {'type': 'CocoMetric', 'ann_file': path, 'metric': kinds}
            step = {'type': 'LoadAnnotations', 'with_mask': masks}
            pipeline = [{'type': 'RandomApply', 'transforms': [step]}]
            place = Place('val_dataloader.dataset', {'pipeline': pipeline}, 'mmdet')
            metric = CocoMetric(ann_file=path, metric=kinds)
            built = of_built([LoadAnnotations(with_mask=masks)], [metric])
            expected = Use(masks=masks, metrics=frozenset([kinds] if kinds == 'bbox' else kinds))
            assert in_config({'val_evaluator': settings}, place, path) == built == expected
            assert in_config({'val_evaluator': [settings]}, place, path) == built


def test_metrics_that_evaluate_nothing_of_this_file(tmp_path):
    path = str(coco_file(tmp_path))
    place = Place('test_dataloader.dataset', {}, 'mmdet')
    good = {'type': 'mmdet.CocoMetric', 'ann_file': path}
    assert in_config({'test_evaluator': good}, place, path).metrics == {'bbox'}
    others = (
        {'format_only': True},
        {'ann_file': 'other'},
        {'ann_file': None},
        {'type': 'LVISMetric'},
    )
    for change in others:
        assert in_config({'test_evaluator': good | change}, place, path) == Use()
    shown = CocoMetric(ann_file=path, format_only=True, outfile_prefix='x')
    assert of_built([], [shown, CocoMetric(), object()]) == Use()
