"""One thread a process, and an mmcv that has its compiled ops."""

import os

import mmcv._ext  # noqa: F401  an mmcv without them must fail here, not in the first detector
import torch

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
