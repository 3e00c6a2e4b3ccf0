"""Metafiles: which configs they list, and what they may say."""

import pytest
import yaml

from mmwave.errors import UserError
from mmwave.zoo import read_metafiles

ENTRY = {'Name': 'fam-a_in1k', 'In Collection': 'Fam', 'Config': 'configs/fam/fam-a_in1k.py'}
RESULT = {
    'Metrics': {'Top-1 (%)': 80},
    'Measured By': 'release',
    'Source': {'Name': 'README', 'URL': 'https://example.org'},
}


@pytest.fixture
def tree(tmp_path):
    """Writes a repository with one leaf and one metafile; returns its root."""

    def write(*models, leaves=('fam-a_in1k',), **extra):
        folder = tmp_path / 'configs/fam'
        folder.mkdir(parents=True)
        for leaf in leaves:
            (folder / f'{leaf}.py').touch()
        content = {'Collections': [{'Name': 'Fam'}], 'Models': list(models), **extra}
        (folder / 'metafile.yml').write_text(yaml.safe_dump(content))
        return tmp_path

    return write


def test_exactly_the_leaves_on_disk_are_listed(root):
    leaves = set(root.glob('configs/[!_]*/*.py'))
    assert leaves
    assert {entry.config for entry in read_metafiles(root)} == leaves


def test_every_cited_figure_names_its_source(root):
    results = [result for entry in read_metafiles(root) for result in entry.results]
    assert len(results) >= 5
    for result in results:
        if not result.measured_by.endswith(' here'):
            assert result.source.url.startswith('https://')


def test_collections_point_at_files_that_exist(root):
    for path in root.glob('configs/*/metafile.yml'):
        for collection in yaml.safe_load(path.read_text())['Collections']:
            assert (root / collection['README']).is_file()


def test_an_entry_is_read(tree):
    paper = {'Title': 'A Title', 'URL': 'https://example.org/p'}
    printed = {'Parameters': '5M', 'Source': {'Name': 'Other'}}
    metadata = {'Metadata': {'Published': printed, 'Note': 'Some.'}}
    (entry,) = read_metafiles(
        tree(
            {**ENTRY, **metadata, 'Results': [RESULT]},
            Collections=[{'Name': 'Fam', 'Paper': paper}],
        )
    )
    assert (entry.name, entry.leaf.variant, entry.published) == (
        'fam-a_in1k',
        'a',
        {'Parameters': '5M'},
    )
    assert (entry.collection.name, entry.collection.paper.url) == ('Fam', 'https://example.org/p')
    assert (entry.published_by.name, entry.note) == ('Other', 'Some.')
    (result,) = entry.results
    assert (result.metrics, result.measured_by) == ({'Top-1 (%)': 80.0}, 'release')
    assert (result.source.name, result.source.url) == ('README', 'https://example.org')


@pytest.mark.parametrize(
    ('models', 'leaves', 'message'),
    [
        ([ENTRY], ['fam-a_in1k', 'fam-b_in1k'], 'does not list fam-b_in1k.py'),
        ([ENTRY], [], 'not beside it: .*fam-a_in1k.py'),
        ([ENTRY, ENTRY], ['fam-a_in1k'], 'twice: fam-a_in1k'),
        ([{**ENTRY, 'Params': 1}], ['fam-a_in1k'], "unknown keys .'Params'.*'Results'"),
        (
            [{**ENTRY, 'Metadata': {'Notes': 'x'}}],
            ['fam-a_in1k'],
            "unknown keys .'Notes'.*'Note'",
        ),
        (
            [{**ENTRY, 'Metadata': {'Published': {'FLOPs': '1G'}}}],
            ['fam-a_in1k'],
            "unknown keys .'FLOPs'.*'MACs'",
        ),
        ([{**ENTRY, 'In Collection': 'Other'}], ['fam-a_in1k'], "'Other'.* Fam"),
        ([{**ENTRY, 'Config': 'configs/fam/x.py'}], ['fam-a_in1k'], 'another name'),
        ([{'Name': 'fam-a_in1k'}], ['fam-a_in1k'], "'In Collection' is missing"),
        (['fam-a_in1k'], ['fam-a_in1k'], 'not have the structure of a metafile'),
        (
            [{**ENTRY, 'Results': [{**RESULT, 'Metrics': {'Top-1 (%)': 'high'}}]}],
            ['fam-a_in1k'],
            "structure of a metafile: .*'high'",
        ),
        (
            [{**ENTRY, 'Results': [{**RESULT, 'Measured By': 'me'}]}],
            ['fam-a_in1k'],
            "measured by 'me'.*release.*trained here",
        ),
        (
            [{**ENTRY, 'Results': [{**RESULT, 'Source': None}]}],
            ['fam-a_in1k'],
            'without a Source',
        ),
        (
            [
                {
                    **ENTRY,
                    'Results': [
                        {
                            'Metrics': {},
                            'Measured By': 'published weights evaluated elsewhere',
                        }
                    ],
                }
            ],
            ['fam-a_in1k'],
            'evaluated elsewhere without a Source',
        ),
    ],
)
def test_mistakes_are_named(tree, models, leaves, message):
    with pytest.raises(UserError, match=message):
        read_metafiles(tree(*models, leaves=leaves))


def test_no_metafile_at_all(tmp_path):
    with pytest.raises(UserError, match=r'no metafile\.yml'):
        read_metafiles(tmp_path)


def test_a_metafile_runs_no_code(tree, tmp_path):
    root = tree(ENTRY)
    target = tmp_path / 'ran'
    (root / 'configs/fam/metafile.yml').write_text(
        f"Models: !!python/object/apply:os.makedirs ['{target}']"
    )
    with pytest.raises(UserError, match='not have the structure'):
        read_metafiles(root)
    assert not target.exists()
