"""What backbones need to be installed, and how long they take to import."""

import subprocess
import sys
import time

import pytest

from tests.contracts import ROOT
from tests.convert import published, test_eamlp, test_posmlp
from tests.families import SMALLEST

# What an extra of the package brings, or another package of the environment.
BLOCKED = (
    *('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm', 'torchvision', 'triton'),
    *('cv2', 'PIL', 'matplotlib', 'pycocotools', 'scipy'),
)


def run(code):
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BLOCK = f"""
import sys
for blocked in {BLOCKED}:
    sys.modules[blocked] = None
"""
EVERY_BACKBONE = f"""
import torch
from mmwave.deploy import to_deploy
from mmwave.registry import MODELS
for name, arch in {SMALLEST}.items():
    model = MODELS.build(dict(type=f'mmwave.{{name}}', arch=arch, drop_path_rate=0.1))
    model.init_weights()
    outputs = model(torch.zeros(2, 3, 32, 32))
    sum(output.sum() for output in outputs).backward()
    deployed, report = to_deploy(model.eval())
    print(name, len(deployed(torch.zeros(2, 3, 32, 32))), bool(report.fused))
"""


def test_build_initialise_train_deploy():
    lines = run(BLOCK + EVERY_BACKBONE)
    # init_weights logs a line a parameter.
    assert [line for line in lines if line.split(' ')[0] in SMALLEST] == [
        f'{name} 4 True' for name in SMALLEST
    ]


PLAIN = dict(depth=4, dim=8)
SIZES = dict(token_mlp_dim=6, channel_mlp_dim=12)
VIP = dict(depths=(1, 2, 1, 1), dims=(8, 16, 16, 16), patch_size=28, grids=(8, 4, 4, 4))
PUBLISHED = {
    'EAMLP': test_eamlp.published(**test_eamlp.TINY),
    'GMLP': published.gmlp(**PLAIN),
    'MLPMixer': published.mlp_mixer(**PLAIN, **SIZES),
    'PosMLP': test_posmlp.published(test_posmlp.TINY),
    'RepMLPNet': published.repmlpnet(**published.REPMLPNET_TINY),
    'ResMLP': published.resmlp(**PLAIN),
    'ViP': published.vip(**VIP),
    'WaveMLP': published.wavemlp(**published.TINY),
}
CONVERT = """
import torch
from mmwave.convert import convert_file
from mmwave.registry import MODELS
from tests import parity
for name, shapes in PUBLISHED.items():
    torch.save(parity.state_dict(shapes.items()), FOLDER + '/published.pth')
    for target in (FOLDER + '/ours.pth', FOLDER + '/ours.safetensors'):
        report = convert_file(FOLDER + '/published.pth', target)
        weights = dict(type='Pretrained', checkpoint=target)
        model = MODELS.build({**report.backbone, 'init_cfg': weights})
        model.init_weights()
        print(name, type(model).__name__)
"""


def test_convert_and_load(tmp_path):
    assert PUBLISHED.keys() <= SMALLEST.keys()
    given = f'PUBLISHED, FOLDER = {PUBLISHED}, {str(tmp_path)!r}'
    lines = run(BLOCK + given + CONVERT)
    assert [line for line in lines if line.split(' ')[0] in PUBLISHED] == [
        f'{name} {name}' for name in PUBLISHED for _ in range(2)
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
