"""Images without a box: in all of a process's batch, in all of all processes' batches."""

import json
import re

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from tests.faults.launch import train
from tests.faults.tasks import write_task

pytestmark = pytest.mark.fault


@pytest.mark.parametrize('task', ['detection', 'instances'])
def test_a_process_without_a_box_waits_for_nobody(tmp_path, task):
    """One image of twelve has a box: in most steps neither of two processes sees it."""
    config = write_task(tmp_path, task)
    boxes = tmp_path / 'data/boxes.json'
    document = json.loads(boxes.read_text())
    document['annotations'] = document['annotations'][:1]
    boxes.write_text(json.dumps(document))
    keep = 'train_dataloader.dataset.filter_cfg.filter_empty_gt=False'
    done = train(config, tmp_path / 'work', '--cfg-options', keep, ranks=2)
    assert done.code == 0, done.text[-3000:]
    losses = [float(value) for value in re.findall(r'  loss: (\S+)', done.text)]
    assert len(losses) == 9  # three epochs of twelve images in two processes of two
    assert torch.tensor(losses).isfinite().all()
    weights = read_checkpoint(tmp_path / 'work/epoch_3.pth')['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())
