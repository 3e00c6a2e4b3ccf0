"""What backbones need to be installed."""

import subprocess
import sys

from tests.contracts import SMALLEST


def test_needs_neither_libraries_nor_compiled_ops():
    """Backbones work where only torch, mmengine and mmcv's Python part are installed."""
    code = f"""
import sys
for blocked in ('mmdet', 'mmseg', 'mmpretrain', 'triton', 'timm', 'mmcv.ops', 'mmcv._ext'):
    sys.modules[blocked] = None
import torch
from mmwave.registry import MODELS
for name, arch in {SMALLEST}.items():
    model = MODELS.build(dict(type=f'mmwave.{{name}}', arch=arch))
    print(name, len(model(torch.zeros(2, 3, 64, 64))))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f'{name} 4' for name in SMALLEST], done.stderr
