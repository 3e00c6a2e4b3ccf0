"""The data are checked before the first step, not when a step fails on them.

The stock data sets load many mistakes in silence (label maps of another size, boxes that are all
dropped, labels that no class has); some fail hours later, some never. The files of this package:

- ``hook.py``: ``DataCheckHook``, which runs the checks on the data sets that a run has built.
- ``datasets.py``: questions about one data set, built or in a config: wrappers, storage, labels.
- ``heads.py``: what the heads of a model expect of the data.
- ``samples.py``: faults of one sample: its image file, its class label, its boxes.
- ``image_files.py``: faults of one image file, judged by the step that will read it.
- ``image_sample.py``: the images of a data set that are opened, and what of them ends a run.
- ``skipping.py``: images that turn out to be broken during training are skipped and counted.
- ``label_reading.py``: who reads the label maps, and how.
- ``label_maps.py``: faults of label maps, judged as the step that reads them will read them.
- ``label_lists.py``: faults of a list of images and labels.
- ``class_names.py``: names of classes, in a config and of two data sets.
- ``class_folders.py``: folders that are taken for classes.
- ``class_settings.py``: what a config says about classes, held against its files.
- ``class_shares.py``: how often the classes occur, and which do not.
- ``splits.py``: what training and validation data must agree on.
- ``pipeline.py``: what the steps of a pipeline do with the files of a sample.
- ``boxes.py``: faults of one box of a built data set.
- ``coco_file.py``: reading a COCO file as mmdet and pycocotools will.
- ``coco_form.py``: the report on a COCO file: what they will do with it.
- ``coco_annotations.py``: what they will do with each annotation.
- ``coco_use.py``: what a run does with it, which says the faults that matter.
- ``coco_tally.py``: counts of its faults, by what they end.
- ``coco_truth.py``: harmless values for what ``CocoMetric`` needs and the file lacks.
- ``settings.py``: the setting ``data_check`` of a config.
- ``tally.py``: counting faults, with the first few offenders.
- ``findings.py``: what was found in one data set, over samples and processes.

Nothing is imported here: the check of a config reads COCO files before torch is imported.
"""
