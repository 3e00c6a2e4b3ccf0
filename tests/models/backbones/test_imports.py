"""What backbones need to be installed, and how long they take to import."""

import subprocess
import sys
import time

import pytest

from tests.contracts import SMALLEST

# What an extra of the package brings, or another package of the environment.
BLOCKED = (
    *('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm', 'torchvision', 'triton'),
    *('cv2', 'PIL', 'matplotlib', 'pycocotools', 'scipy'),
)


def run(code):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_needs_torch_and_mmengine_alone():
    """Build, initialise, train a step, convert in memory, deploy."""
    lines = run(f"""
import sys
for blocked in {BLOCKED}:
    sys.modules[blocked] = None
import torch
import mmwave.convert
from mmwave.deploy import to_deploy
from mmwave.registry import MODELS
for name, arch in {SMALLEST}.items():
    model = MODELS.build(dict(type=f'mmwave.{{name}}', arch=arch, drop_path_rate=0.1))
    model.init_weights()
    outputs = model(torch.zeros(2, 3, 32, 32))
    sum(output.sum() for output in outputs).backward()
    deployed, report = to_deploy(model.eval())
    print(name, len(deployed(torch.zeros(2, 3, 32, 32))), bool(report.fused))
""")
    # init_weights logs a line a parameter.
    assert [line for line in lines if line.split(' ')[0] in SMALLEST] == [
        f'{name} 4 True' for name in SMALLEST
    ]


IMPORTED = """
import torch, mmengine, sys
before = set(sys.modules)
import mmwave.models
new = set(sys.modules) - before
print(*sorted({name.split('.')[0] for name in new} - set(sys.stdlib_module_names)))
print(*sorted(name for name in new if name.startswith(('torch', 'sympy'))))
"""


def test_importing_them_imports_no_more_of_torch():
    """No dynamo, distributed optimizers or symbolic mathematics: each takes as long as torch."""
    packages, torchs = run(IMPORTED)
    assert set(packages.split()) <= {'mmwave', 'numpy', 'safetensors'}
    assert torchs == ''


@pytest.mark.slow
def test_importing_them_takes_little_longer_than_torch_and_mmengine():
    def seconds(code):
        start = time.perf_counter()
        run(code)
        return time.perf_counter() - start

    both = [(seconds('import torch, mmengine'), seconds('import mmwave.models')) for _ in range(7)]
    assert min(ours for _, ours in both) <= 1.3 * min(theirs for theirs, _ in both)
