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
from speed.plot import read
from tests.contracts import ROOT

DOCUMENTS = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'SECURITY.md',
    *sorted(ROOT.glob('docs/**/*.md')),
    *sorted(ROOT.glob('configs/**/README.md')),
    *sorted(ROOT.glob('projects/**/README.md')),
]
FAMILIES = sorted(ROOT.glob('configs/*/metafile.yml'))
DOCUMENT = pytest.mark.parametrize('document', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
PATH = re.compile(r'(?<![\w/.-])(?:tools|configs|projects|mmwave|tests|\.ci)/[\w./<>-]*[\w/>]')
LINK = re.compile(r'\]\((?!https?://)([^)\s]+)\)')
MAKE = re.compile(r'(?:`|^)make ([a-z -]+?)(?:`|\s+#|$)', re.MULTILINE)
SNIPPET = re.compile(r'```python\n(.*?)```', re.DOTALL)
COMMAND = re.compile(r'(tools/\w+\.(?:py|sh))(.*)')


def missing_paths(text, folder=ROOT):
    """Paths that are neither in the repository's root nor in the document's folder.

    ``<family>`` in a path stands for any name.
    """
    named = {path: re.sub(r'<\w+>', '*', path) for path in PATH.findall(text)}
    return sorted(p for p, g in named.items() if not (any(ROOT.glob(g)) or any(folder.glob(g))))


def targets():
    """Targets of the Makefile."""
    return set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))


def unknown_options(text):
    """Options behind a tool that neither it nor the tool it starts defines."""
    unknown = []
    for tool, rest in COMMAND.findall(text.replace('\\\n', ' ')):
        python = re.sub(r'(?:dist_|slurm_)?(\w+)\.\w+', r'\1.py', tool)
        scripts = [path for path in (ROOT / python, ROOT / tool) if path.exists()]
        scripts += (ROOT / 'mmwave/cli').rglob('*.py')
        known = ''.join(path.read_text() for path in scripts)
        command = rest.partition('`')[0].partition(' #')[0]
        unknown += [
            f'{tool} {o}' for o in re.findall(r'\s(--[\w-]+)', command) if f"'{o}'" not in known
        ]
    return unknown


def leads_somewhere(document, link):
    """A path or nothing, and behind a # a heading of it in the words that a link uses."""
    path, _, anchor = link.partition('#')
    target = document.parent / path if path else document
    if not target.exists():
        return False
    headings = re.findall(r'^#+ (.*)', target.read_text(), re.M) if anchor else []
    words = {re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in headings}
    return not anchor or anchor in words


@DOCUMENT
def test_paths_exist(document):
    assert missing_paths(document.read_text(), document.parent) == []


@DOCUMENT
def test_links_lead_somewhere(document):
    links = LINK.findall(document.read_text())
    assert [link for link in links if not leads_somewhere(document, link)] == []


@DOCUMENT
def test_make_targets_exist(document):
    named = {target for line in MAKE.findall(document.read_text()) for target in line.split()}
    assert named <= targets()


@DOCUMENT
def test_python_snippets_are_python(document):
    for snippet in SNIPPET.findall(document.read_text()):
        compile(snippet, str(document), 'exec')


@DOCUMENT
def test_options_of_the_tools_exist(document):
    assert unknown_options(document.read_text()) == []


def test_the_checks_see_what_is_wrong():
    assert missing_paths('see `tools/nothing.py` and configs/wavemlp/x_in1k.py, not a/tools/y') == [
        'configs/wavemlp/x_in1k.py',
        'tools/nothing.py',
    ]
    assert missing_paths('`tests/families/<family>.py` or `tests/<family>/x.py`') == [
        'tests/<family>/x.py'
    ]
    assert LINK.findall('[a](b.md) [c](https://d) [e](#f)') == ['b.md', '#f']
    assert leads_somewhere(ROOT / 'README.md', '#licence-and-citation')
    assert leads_somewhere(ROOT / 'docs/README.md', 'install.md#mmcvs-compiled-ops')
    assert not leads_somewhere(ROOT / 'README.md', '#nowhere')
    assert not leads_somewhere(ROOT / 'README.md', 'docs/nowhere.md')
    assert MAKE.findall('`make lint fly`\nmake demo    # shows\n') == ['lint fly', 'demo']
    assert unknown_options('tools/dist_train.sh x.py 8 --amp \\\n  --fly') == [
        'tools/dist_train.sh --fly'
    ]


def test_the_first_page_names_the_two_commands():
    named = MAKE.findall((ROOT / 'README.md').read_text())
    assert {'demo', 'test'} <= set(named)


def test_the_first_page_is_short():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 220
    assert 'bibtex' not in text
    assert '@' not in text


def test_the_first_page_s_example_has_six_lines(snippets):
    assert len(snippets['plain'].splitlines()) == 6


def test_the_first_page_s_speed_is_that_of_the_tables():
    rows = [row for row in read(sorted((ROOT / 'docs/speed').glob('*.csv'))) if 'form' in row]
    rows = [row for row in rows if row['role'] == 'ours' and not row['problem']]

    def span(values):
        return f'{min(values):.2f} to {max(values):.2f}'

    def gains(form):
        name = {'eager': 'speedup_median', 'compiled': 'compiled_speedup_median'}
        chosen = [(row, row[name[row['run']]]) for row in rows if row['form'] == form]
        return [float(gain) for _, gain in chosen if gain]

    text = ' '.join((ROOT / 'README.md').read_text().split())
    assert f'deploy forms run {span(gains("deploy"))} times as fast' in text
    assert f'A training step runs {span(gains("lean"))} times as fast' in text
    tables = (ROOT / 'docs/speed/README.md').read_text()
    training = tables.partition('**Training step')[2].partition('**Whole')[0]
    shares = re.findall(r'\d+ MB \| ([\d.]+) ×', training)
    assert f'stores {span([float(share) for share in shares])} of the activations' in text


@pytest.fixture(scope='module')
def snippets():
    first = SNIPPET.findall((ROOT / 'README.md').read_text())
    more = SNIPPET.findall((ROOT / 'docs/using-backbones.md').read_text())
    return dict(zip(('plain', 'memory', 'mmdet', 'mmseg'), [*first, *more], strict=True))


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
    stages = scope['backbone'].stage_info
    assert [tuple(m.shape) for m in scope['maps']] == [
        (1, info.channels, 480 // info.stride, 640 // info.stride) for info in stages
    ]
    # What the comments say.
    assert [info.stride for info in stages] == [4, 8, 16, 32]
    assert [info.channels for info in stages] == [64, 128, 320, 512]


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


def test_the_citation_file_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert all(reference['authors'] for reference in citation['references'])


def bibtex(text):
    """(title, family names, year) of every paper of a document, in plain letters."""
    found = []
    for entry in re.findall(r'^@\w+\{.*?^\}', text, re.DOTALL | re.MULTILINE):
        entry = ' '.join(entry.replace("{\\'e}", 'é').split())
        field = {
            name: re.search(rf'\b{name}\s*=\s*\{{(.*?)\}}(?:,|\s*\}}|$)', entry)[1]
            for name in ('title', 'author', 'year')
        }
        names = [name.partition(',')[0].strip('{}') for name in field['author'].split(' and ')]
        found.append((re.sub('[{}]', '', field['title']), names, field['year']))
    return found


def test_bibtex_is_read():
    text = """```bibtex
@article{a,
  title  = {An {A} of {B}},
  author = {J{\\'e}gou, H and
            Bo-Li, C},
  year   = {2021}
}
```"""
    assert bibtex(text) == [('An A of B', ['Jégou', 'Bo-Li'], '2021')]


def test_the_citation_file_has_the_paper_of_every_family():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    papers = {
        paper['title']: (
            [author['family-names'] for author in paper['authors']],
            str(paper['year']),
        )
        for paper in citation['references']
    }
    assert len(papers) == len(FAMILIES)
    for metafile in FAMILIES:
        (cited,) = bibtex((metafile.parent / 'README.md').read_text())
        (collection,) = yaml.safe_load(metafile.read_text())['Collections']
        assert cited[0] == collection['Paper']['Title']
        assert papers[cited[0]] == cited[1:]


def test_continuous_integration_runs_what_a_contributor_runs():
    jobs = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())['jobs']
    job = jobs['lint-and-test']
    assert job['steps'][-1] == {'run': '.ci/run'}
    versions = job['strategy']['matrix']['python']
    text = (ROOT / 'README.md').read_text()
    assert f'Python {", ".join(versions[:-1])} or {versions[-1]}' in text


def test_pre_commit_downloads_nothing():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    assert [repo['repo'] for repo in config['repos']] == ['local']
    assert {hook['language'] for hook in config['repos'][0]['hooks']} == {'system'}
