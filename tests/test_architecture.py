"""Who may import whom: the rooms of the package and the doors between them."""

import ast
import re
from pathlib import Path

import pytest

import mmwave

PACKAGE = Path(mmwave.__file__).parent
LIBRARIES = {'mmdet', 'mmseg', 'mmpretrain'}
# What a backbone does without, and the rooms that do.
EXTRAS = LIBRARIES | {'mmcv', 'timm', 'torchvision', 'cv2', 'PIL', 'matplotlib'}
WITHOUT_EXTRAS = {
    *('errors', 'structures', 'registry', 'ops', 'models', 'checkpoint', 'convert', 'deploy'),
}
# Activations that mmcv alone registers are asked of it by name, where it is installed.
MAY_ASK_MMCV = PACKAGE / 'models/layers/activation.py'

# Room -> the rooms it may import at module level. Files beside the rooms are rooms of one file.
DOORS = {
    'errors': set(),
    'structures': set(),
    'registry': set(),
    'checkpoint': {'errors'},
    'deploy': {'errors'},
    'convert': {'errors', 'checkpoint', 'deploy', 'models'},
    'ops': {'structures'},
    'models': {'errors', 'structures', 'registry', 'checkpoint', 'ops', 'deploy'},
    'mmcv_ops': {'errors'},
    'engine': {'errors', 'registry', 'checkpoint', 'mmcv_ops'},
    'apis': {
        *('errors', 'structures', 'registry', 'checkpoint', 'models', 'engine', 'deploy'),
        'mmcv_ops',
    },
    'inspect': {'errors', 'structures', 'ops', 'models', 'engine', 'deploy', 'apis', 'mmcv_ops'},
    'zoo': {'errors', 'structures', 'registry', 'ops', 'models', 'apis', 'inspect'},
}
FAMILY_FILES = sorted(
    p
    for p in (PACKAGE / 'models/backbones').glob('*.py')
    if '@MODELS.register_module()' in p.read_text()
)
NOT_IN_FAMILIES = (
    *('spare', 'constant=', 'any_size', 'device.type', 'Fused', 'deploy_state', 'runner('),
    *('may_overwrite', 'is_tracing', 'is_dynamic', 'selective_recompute', 'cached(', 'Constant'),
)
MOST_LINES = 350
LINES = {'posmlp': 450, 'eamlp': 440, 'repmlpnet': 470, 'wavemlp': 330}
LINES |= dict.fromkeys(('gmlp', 'mlp_mixer', 'resmlp'), 200)
"""Most lines of a family's file, where they are others than most."""
# Version only: the converter writes it into its files.
FREE = {'__version__'}


def files():
    return sorted(p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py')


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path: Path, top_level_only: bool) -> set[str]:
    """Absolute dotted names that a file imports."""
    tree = ast.parse(path.read_text())
    inside = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    package = ['mmwave', *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(tree):
        if top_level_only and node in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = '.'.join([*base, *([node.module] if node.module else [])])
            found |= {stem} if node.module else {f'{stem}.{alias.name}' for alias in node.names}
            if stem == 'mmwave':
                found |= {f'mmwave.{alias.name}' for alias in node.names}
    return found


@pytest.mark.parametrize('path', files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_doors(path):
    room = room_of(path)
    names = imports(path, top_level_only=False)
    ours = {n.split('.')[1] for n in names if n.startswith('mmwave.')} - {room} - FREE
    assert ours <= DOORS[room], f'{room} may not import {sorted(ours - DOORS[room])}'
    libraries = {n.split('.')[0] for n in names} & LIBRARIES
    assert not libraries or room == 'apis', f'only apis may import {sorted(libraries)}'
    at_top = {n.split('.')[0] for n in imports(path, top_level_only=True)} & LIBRARIES
    assert not at_top, f'{sorted(at_top)} must be imported inside functions'
    if room in WITHOUT_EXTRAS:
        extras = {n.split('.')[0] for n in imports(path, top_level_only=path == MAY_ASK_MMCV)}
        assert not extras & EXTRAS, f'{sorted(extras & EXTRAS)}: a backbone does without'
    if room in ('ops', 'structures', 'errors'):
        assert not {n.split('.')[0] for n in names} & {'mmengine'}


def test_mmcv_is_asked_for_activations_alone():
    names = imports(MAY_ASK_MMCV, top_level_only=False)
    assert {n for n in names if n.split('.')[0] in EXTRAS} == {'mmcv.cnn'}


def test_no_backbone_imports_another():
    folder = PACKAGE / 'models/backbones'
    families = {p.stem for p in FAMILY_FILES}
    for family in families:
        others = {
            n.rsplit('.', 1)[-1] for n in imports(folder / f'{family}.py', top_level_only=False)
        }
        assert not others & (families - {family})


@pytest.mark.parametrize('path', FAMILY_FILES, ids=lambda p: p.stem)
def test_a_family_file_is_the_paper_alone(path):
    """How memory is saved, what may be overwritten and the deploy form stand elsewhere."""
    code = path.read_text()
    assert not [word for word in NOT_IN_FAMILIES if word in code]
    assert 'if self.deploy' not in code
    assert len(code.splitlines()) <= LINES.get(path.stem, MOST_LINES), path


def test_a_deploy_form_imports_no_backbone():
    for path in (PACKAGE / 'models/deployed').glob('*.py'):
        names = imports(path, top_level_only=False)
        assert not [n for n in names if n.startswith('mmwave.models.backbones')]
        assert path.stem == '__init__' or (PACKAGE / 'models/backbones' / path.name).exists()


def test_one_file_decides_what_may_be_overwritten():
    """Of modules: ops overwrite what they made themselves, or what their name says, ``gelu_``."""
    asking = [
        path
        for path in (PACKAGE / 'models').rglob('*.py')
        if re.search(r'is_grad_enabled|is_inference_mode', path.read_text())
    ]
    allowed = ('layers/inplace.py', 'recompute.py', 'backbones/base.py')
    assert {str(p.relative_to(PACKAGE / 'models')) for p in asking} <= set(allowed)


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in files()} <= set(DOORS)


def test_ops_hold_no_modules():
    for path in (PACKAGE / 'ops').rglob('*.py'):
        bases = {
            ast.unparse(base)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        }
        assert not {b for b in bases if b.endswith('Module')}


def test_importing_mmwave_imports_nothing_heavy(tmp_path):
    import subprocess
    import sys

    heavy = ('torch', 'mmengine', 'mmcv', 'numpy')
    code = f'import sys, mmwave; print([m for m in {heavy} if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == '[]', done.stderr
