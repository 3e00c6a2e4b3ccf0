"""The rooms of the package: who may import whom, what tests what, and how large things are."""

import ast
import re
from pathlib import Path

import pytest

import mmwave

PACKAGE = Path(mmwave.__file__).parent
TESTS = Path(__file__).parent
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
    '__main__': {'cli'},
    'errors': set(),
    'structures': set(),
    'registry': set(),
    'model_names': {'apis'},
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
    'export': {
        *('errors', 'structures', 'checkpoint', 'ops', 'models', 'engine', 'deploy', 'apis'),
        'mmcv_ops',
    },
    'zoo': {'errors', 'structures', 'registry', 'ops', 'models', 'apis', 'inspect'},
    'cli': {'errors', 'engine', 'convert', 'apis', 'inspect', 'export'},
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

# Module -> the test that names it, where that is not the one at the mirrored path.
TESTED_BY = {
    # Errors and helpers of what is tested there.
    'apis/usage': 'apis/test_run.py',
    'checkpoint/missing': 'checkpoint/test_writing.py',
    'convert/family': 'convert/test_target.py',
    # What all words of the command keep to.
    '__main__': 'cli/test_commands.py',
    'cli/program': 'cli/test_commands.py',
    'cli/parsers': 'cli/test_commands.py',
    # Every published format is converted through it; models in memory have a file of their own.
    'convert/api': 'convert/test_memory.py',
    'engine/exit_codes': 'engine/watching/test_ending.py',
    # Seeding reseeds what is found there.
    'engine/exact_resume/own_generators': 'engine/exact_resume/test_seeding.py',
    # They act during a run alone.
    'engine/failed_step': 'apis/test_failures.py',
    'engine/agreement': 'faults/test_agreement.py',
    'engine/hooks/agreement': 'faults/test_agreement.py',
    'engine/trained_with': 'engine/test_resuming.py',
    'engine/hooks/resume_check': 'apis/test_resume.py',
    'engine/hooks/start_summary': 'apis/test_run.py',
    'engine/parent': 'engine/test_signals.py',
    'engine/process_group': 'test_distributed.py',
    'engine/training_state': 'apis/test_resume.py',
    # Beside the ops that serve where mmcv has none, which need no such care.
    'mmcv_ops/precision': 'mmcv_ops/test_torchvision_ops.py',
    # Rendered tables and the files that they stand in.
    'zoo/readmes': 'zoo/test_tables.py',
}
# Module -> the module whose tests reach it: parts of one thing, without a promise of their own.
PART_OF = {
    # What a word of the command accepts, and how it is read.
    'cli/options': 'cli/commands/train',
    # What preflight checks of data, and what it asks of a config for that.
    'apis/class_checks': 'apis/preflight',
    'apis/data_files': 'apis/preflight',
    'apis/places': 'apis/preflight',
    # How a prepared config becomes a runner, and what is looked for before.
    'apis/building': 'apis/run',
    'apis/libraries': 'apis/run',
    'apis/weights': 'apis/run',
    # What a run writes its checkpoints through.
    'engine/checkpoints/writing': 'engine/checkpoints/hook',
    # Of exceptions of one kind.
    'apis/config_errors': 'apis/failures',
    'apis/memory_advice': 'apis/failures',
    # A file is read by one of two doors.
    'checkpoint/archives': 'checkpoint/torch_files',
    'checkpoint/nodes': 'checkpoint/pickles',
    'checkpoint/stand_ins': 'checkpoint/pickles',
    'checkpoint/torch_tensors': 'checkpoint/torch_files',
    'checkpoint/unpickler': 'checkpoint/pickles',
}
# Folder -> the test that finds all its modules: a file of their own is for what is special to one.
FOUND = {'models/deployed': 'models/deployed/test_deploy_forms.py'}
# Tests of what no single module promises.
ACROSS = {
    'apis/test_lazy.py',
    'apis/test_resume.py',
    'apis/test_wrong_files.py',
    'checkpoint/test_bombs.py',
    'checkpoint/test_fuzz.py',
    'checkpoint/test_resuming.py',
    'deploy/test_changes.py',
    'deploy/test_kernels.py',
    'mmcv_ops/test_finder.py',  # of the package itself
    # Every family.
    'models/backbones/test_compile.py',
    'models/backbones/test_contract.py',
    'models/backbones/test_derivatives.py',
    'models/backbones/test_export.py',
    'models/backbones/test_hooks.py',
    'models/backbones/test_imports.py',
    'models/backbones/test_new_family.py',
    'models/backbones/test_random_archs.py',
    'models/deployed/test_deploy_forms.py',
    # One op, by backend.
    'ops/test_phase_mix_fast.py',
    'ops/test_phase_mix_triton.py',
}

# A question, not a law: what is longer stands here with its answer.
MODULE_LINES, FUNCTION_LINES = 400, 60
LONG_MODULES = {
    # One function for each of mmcv's compiled ops: mmcv expects them in one module.
    'mmcv_ops/torchvision_ops': 579,
    # The kernels of one op, forward and backward, which share their inner loops.
    'ops/_phase_mix/triton_kernels': 548,
}
LONG_FUNCTIONS = {
    # The docstring of a public op.
    ('ops/_phase_mix/__init__', 'phase_mix'): 64,
    # Triton compiles a kernel from one function; its arguments alone are many lines.
    ('ops/_phase_mix/triton_kernels', '_mix'): 87,
    ('ops/_phase_mix/triton_kernels', 'forward_kernel'): 85,
    ('ops/_phase_mix/triton_kernels', '_mix_backward'): 138,
    ('ops/_phase_mix/triton_kernels', 'backward_kernel'): 103,
}


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
    allowed = ('layers/inplace.py', 'recompute/__init__.py', 'backbones/base.py')
    assert {str(p.relative_to(PACKAGE / 'models')) for p in asking} <= set(allowed)


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in files()} <= set(DOORS)


def test_the_document_has_the_same_table():
    text = (TESTS.parent / 'docs/architecture.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \|.*\| ([^|]*) \|$', text, re.MULTILINE)
    assert {room: set(re.findall(r'`(\w+)`', others)) for room, others in rows} == DOORS


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


def name_of(path: Path) -> str:
    """``ops/_gelu/cpp`` of ``mmwave/ops/_gelu/cpp.py``."""
    return path.relative_to(PACKAGE).with_suffix('').as_posix()


def mirrored(name: str) -> list[str]:
    """Tests at the path of a module, or at that of a package that it is a part of."""
    parts = [part.lstrip('_') for part in name.removesuffix('/__init__').split('/')]
    paths = [f'{"/".join([*parts[:n], "test_"])}{parts[n]}.py' for n in range(len(parts))]
    found = [path for path in paths if (TESTS / path).exists()]
    if not (PACKAGE / '/'.join(parts)).is_dir():  # a folder of tests of this module alone
        found += [p.relative_to(TESTS).as_posix() for p in TESTS.glob(f'{"/".join(parts)}/test_*')]
    return found


def public_names(path: Path) -> set[str]:
    body = ast.parse(path.read_text()).body
    names = {n.name for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    targets = [t for n in body if isinstance(n, ast.Assign) for t in n.targets]
    names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return {name for name in names if not name.startswith('_')}


MODULES = {name_of(p): p for p in files()}


@pytest.mark.parametrize('name', [name for name in MODULES if not name.endswith('__init__')])
def test_every_module_has_its_test(name):
    here = [bool(mirrored(name)), name in TESTED_BY, name in PART_OF]
    found = name.rpartition('/')[0] in FOUND
    assert any(here) or found, f'no test: write tests/{name}, or say in TESTED_BY what names it'
    if found:
        return
    assert sum(here) == 1, f'{name} has {mirrored(name)} too: take it out of the table'


@pytest.mark.parametrize('name', TESTED_BY)
def test_the_test_of_another_path_names_the_module(name):
    code = (TESTS / TESTED_BY[name]).read_text()
    names = {f'mmwave.{name}'.replace('/', '.'), *public_names(MODULES[name])}
    assert [n for n in names if re.search(rf'\b{re.escape(n)}\b', code)], names


@pytest.mark.parametrize('folder', FOUND)
def test_a_folder_s_test_finds_its_modules(folder):
    code = (TESTS / FOUND[folder]).read_text()
    assert re.search(r'\bNAMES\b|\bregistered\(\)', code), 'it looks for no families'
    assert FOUND[folder] in ACROSS


@pytest.mark.parametrize('name', PART_OF)
def test_a_part_is_imported_by_what_it_is_a_part_of(name):
    whole = MODULES[PART_OF[name]]
    assert f'mmwave.{name}'.replace('/', '.') in imports(whole, top_level_only=True)
    assert mirrored(PART_OF[name])


def test_every_test_belongs_to_a_module():
    rooms = [TESTS / room for room in DOORS if (TESTS / room).is_dir()]
    tests = {p.relative_to(TESTS).as_posix() for room in rooms for p in room.rglob('test_*.py')}
    at_mirror = {path for name in MODULES for path in mirrored(name)}
    assert tests - at_mirror == ACROSS, 'a test without a module, or a stale entry of ACROSS'


def test_modules_and_functions_are_short():
    modules, functions = {}, {}
    for name, path in MODULES.items():
        code = path.read_text()
        modules[name] = len(code.splitlines())
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[name, node.name] = node.end_lineno - node.lineno + 1
    families = {name_of(path) for path in FAMILY_FILES}  # see LINES
    long = {k for k, n in modules.items() if n > MODULE_LINES} - families
    assert long == set(LONG_MODULES), 'a module to part, or a stale entry'
    assert {k for k, n in functions.items() if n > FUNCTION_LINES} == set(LONG_FUNCTIONS)
    grown = {k: n for k, n in modules.items() if n > LONG_MODULES.get(k, n)}
    grown |= {k: n for k, n in functions.items() if n > LONG_FUNCTIONS.get(k, n)}
    assert not grown, 'longer than when somebody last asked'
