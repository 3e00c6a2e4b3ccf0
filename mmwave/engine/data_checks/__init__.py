"""The data are checked before the first step, not when a step fails on them.

The stock data sets load many mistakes in silence (label maps of another size, boxes that are all
dropped, labels that no class has); some fail hours later, some never. The files of this package:

- ``hook.py``: ``DataCheckHook``, which runs the checks on the data sets that a run has built.
- ``datasets.py``: questions about one data set, built or in a config: wrappers, storage, labels.
- ``heads.py``: what the heads of a model expect of the data.
- ``samples.py``: faults of one sample: its image file, its class label, its boxes.
- ``label_maps.py``: faults of one label map, judged as the stock transforms will read it.
- ``pipeline.py``: what the steps of a pipeline do with the files of a sample.
- ``boxes.py``: faults of one box.
- ``coco_file.py``: COCO files, read once for the config and for the data set.
- ``coco_form.py``: what mmdet and pycocotools do with each part of a COCO file.
- ``coco_truth.py``: what a metric's truth lacks is filled in.
- ``tally.py``: counting faults, with the first few offenders.
- ``findings.py``: what was found in one data set, over samples and processes.

Nothing is imported here: the check of a config reads COCO files before torch is imported.
"""
