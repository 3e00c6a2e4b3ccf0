"""A config for somebody's own data, over a shipped one: what is read, decided and written.

- ``config.py``: ``init_config``, which puts the parts together.
- ``base.py``: what a base is for, and where it states classes.
- ``inputs.py``: paths and names of classes, as they are given.
- ``coco.py``, ``masks.py``, ``folders.py``: what the data hold, one file for each form.
- ``data.py``: what all three return.
- ``rates.py``: learning rate and schedule for this batch and these images.
- ``remarks.py``: what looks wrong.
- ``text.py``: settings as the text of a config, laid out as a formatter does.

Nothing is imported here: the command looks for the files before mmengine is imported.
"""
