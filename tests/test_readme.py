"""What the documents name exists, and the snippets they print run."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmwave
from mmwave.models import ResMLP
from tests.contracts import ROOT

DOCUMENTS = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'SECURITY.md',
    ROOT / 'configs/README.md',
    *sorted(ROOT.glob('configs/*/README.md')),
    ROOT / 'projects/real_mini/README.md',
    ROOT / 'projects/shapes/README.md',
]
DOCUMENT = pytest.mark.parametrize('document', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
PATH = re.compile(r'(?<![\w/.-])(?:tools|configs|projects|mmwave|tests|\.ci)/[\w./-]*[\w/]')
LINK = re.compile(r'\]\((?!https?://|#)([^)\s]+)\)')
MAKE = re.compile(r'(?:`|^)make ([a-z -]+?)(?:`|\s+#|$)', re.MULTILINE)
SNIPPET = re.compile(r'```python\n(.*?)```', re.DOTALL)
COMMAND = re.compile(r'(tools/\w+\.(?:py|sh))(.*)')


def missing_paths(text):
    return sorted({path for path in PATH.findall(text) if not (ROOT / path).exists()})


def targets():
    """Targets of the Makefile."""
    return set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))


def unknown_options(text):
    """Options behind a tool that neither it nor the tool it starts defines."""
    unknown = []
    for tool, rest in COMMAND.findall(text.replace('\\\n', ' ')):
        python = re.sub(r'(?:dist_|slurm_)?(\w+)\.\w+', r'\1.py', tool)
        known = (ROOT / python).read_text() + (ROOT / 'mmwave/apis/cli.py').read_text()
        command = rest.partition('`')[0].partition(' #')[0]
        unknown += [
            f'{tool} {o}' for o in re.findall(r'\s(--[\w-]+)', command) if f"'{o}'" not in known
        ]
    return unknown


def leads_somewhere(folder, link):
    """A path, and behind a # a heading of it in the words that a link uses."""
    path, _, anchor = link.partition('#')
    if not (folder / path).exists():
        return False
    headings = re.findall(r'^#+ (.*)', (folder / path).read_text(), re.M) if anchor else []
    words = {re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in headings}
    return not anchor or anchor in words


@DOCUMENT
def test_paths_exist(document):
    text = document.read_text()
    assert PATH.search(text)
    assert missing_paths(text) == []


@DOCUMENT
def test_links_lead_somewhere(document):
    links = LINK.findall(document.read_text())
    assert [link for link in links if not leads_somewhere(document.parent, link)] == []


@DOCUMENT
def test_make_targets_exist(document):
    named = {target for line in MAKE.findall(document.read_text()) for target in line.split()}
    assert named <= targets()


@DOCUMENT
def test_options_of_the_tools_exist(document):
    assert unknown_options(document.read_text()) == []


def test_the_checks_see_what_is_wrong():
    assert missing_paths('see `tools/nothing.py` and configs/wavemlp/x_in1k.py, not a/tools/y') == [
        'configs/wavemlp/x_in1k.py',
        'tools/nothing.py',
    ]
    assert LINK.findall('[a](b.md) [c](https://d)') == ['b.md']
    assert MAKE.findall('`make lint fly`\nmake demo    # shows\n') == ['lint fly', 'demo']
    assert unknown_options('tools/dist_train.sh x.py 8 --amp \\\n  --fly') == [
        'tools/dist_train.sh --fly'
    ]


def test_the_first_page_names_the_two_commands():
    named = MAKE.findall((ROOT / 'README.md').read_text())
    assert {'demo', 'test'} <= set(named)


@pytest.fixture(scope='module')
def snippets():
    texts = SNIPPET.findall((ROOT / 'README.md').read_text())
    return dict(zip(('memory', 'mmdet', 'mmseg', 'plain'), texts, strict=True))


@pytest.mark.parametrize(
    ('scope', 'widths'), [('mmdet', [128, 320, 512]), ('mmseg', [64, 128, 320, 512])]
)
def test_the_snippets_for_ones_own_project_build(snippets, scope, widths, tmp_path):
    library = pytest.importorskip(scope)
    text = snippets[scope]
    if scope == 'mmseg':
        # The snippet stands beside mmseg's config; here that one is in the installed package.
        folder = Path(library.__file__).parent / '.mim/configs/upernet'
        text = text.replace("_base_ = '", f"_base_ = '{folder}/")
    path = tmp_path / 'snippet.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        maps = model.extract_feat(torch.empty(1, 3, 128, 160))
    assert [info.channels for info in model.backbone.stage_info] == widths
    assert len(maps) == {'mmdet': 5, 'mmseg': 4}[scope]


def test_the_plain_snippet_runs(snippets):
    scope = {}
    exec(snippets['plain'], scope)  # noqa: S102  our own README
    assert [tuple(m.shape) for m in scope['maps']] == [
        (1, info.channels, 224 // info.stride, 224 // info.stride)
        for info in scope['backbone'].stage_info
    ]


def test_the_snippet_for_a_model_in_memory_runs(snippets):
    pytest.importorskip('timm')
    scope = {}
    exec(snippets['memory'].replace('pretrained=True', ''), scope)  # noqa: S102  our own README
    assert scope['backbone'].arch == ResMLP.archs['s12']


def test_the_documents_know_the_version():
    version = mmwave.__version__
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == version
    latest = re.search(r'^## \[([\d.]+)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert latest[1] == version
    assert f'version = {{{version}}}' in (ROOT / 'README.md').read_text()


def test_the_citation_file_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert all(reference['authors'] for reference in citation['references'])


def test_continuous_integration_runs_what_a_contributor_runs():
    (job,) = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())['jobs'].values()
    assert job['steps'][-1] == {'run': '.ci/run'}
    assert job['strategy']['matrix']['python'] == ['3.11', '3.12']


def test_pre_commit_downloads_nothing():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    assert [repo['repo'] for repo in config['repos']] == ['local']
    assert {hook['language'] for hook in config['repos'][0]['hooks']} == {'system'}
