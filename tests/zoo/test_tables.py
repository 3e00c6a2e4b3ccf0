"""Tables between markers, and the tool that renders and checks them."""

import importlib.util
import sys

import pytest
import yaml

from mmwave.cli import run_tool
from mmwave.errors import UserError
from mmwave.zoo import Complexity, GridFacts, ImageCost, Zoo, stale_tables, update_readmes
from mmwave.zoo.readmes import model_index

HEAD = 'above\n<!-- zoo:begin {0} -->\nold\n<!-- zoo:end {0} -->\nbelow\n'


def entry(name, *results, **metadata):
    return {
        'Name': name,
        'In Collection': 'Fam',
        'Config': f'configs/fam/{name}.py',
        'Metadata': metadata,
        'Results': list(results),
    }


MODELS = [
    entry(
        'fam-a_in1k',
        {
            'Metrics': {'Top-1 (%)': 80.5, 'Top-5 (%)': 95},
            'Measured By': 'release',
            'Source': {'Name': 'README', 'URL': 'https://example.org'},
        },
        {'Metrics': {'Top-1 (%)': 80.4}, 'Measured By': 'trained here'},
        Published={'Parameters': '2M'},
    ),
    entry('fam-b_in1k'),
    entry('fam-a_mask-rcnn_1x_coco'),
]


def count(config, size):
    """Return 2 M parameters and a MAC per pixel and thousand."""
    part = 'model' if 'in1k' in config.name else 'backbone'
    return Complexity(params=2_000_000, macs=size[0] * size[1] * 1000, counted=part)


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / 'configs/fam'
    folder.mkdir(parents=True)
    for model in MODELS:
        (folder / f'{model["Name"]}.py').touch()
    metafile = {'Collections': [{'Name': 'Fam'}], 'Models': MODELS}
    (folder / 'metafile.yml').write_text(yaml.safe_dump(metafile))
    (folder / 'README.md').write_text(HEAD.format('fam/in1k') + HEAD.format('fam/coco'))
    (tmp_path / 'README.md').write_text(HEAD.format('all/coco'))
    return tmp_path


def rows(table):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.split('\n')]


def test_a_table_of_classifiers(repo):
    header, _, *body = rows(Zoo(repo, count).table('fam/in1k', repo))
    assert header == [
        'config',
        'parameters of the model, computed here',
        'MACs of the model at 224 × 224, computed here',
        'Parameters, published',
        'Top-1 (%)',
        'Top-5 (%)',
        'measured by',
    ]
    link = '[fam-a_in1k](configs/fam/fam-a_in1k.py)'
    other = '[fam-b_in1k](configs/fam/fam-b_in1k.py)'
    release = 'release ([README](https://example.org))'
    assert body == [
        [link, '2.00 M', '0.05 G', '2M', '80.5', '95', release],
        [link, '2.00 M', '0.05 G', '2M', '80.4', '–', 'trained here'],
        [other, '2.00 M', '0.05 G', '–', '–', '–', '–'],
    ]


def test_a_table_without_results_has_no_columns_for_them(repo):
    header, _, row = rows(Zoo(repo, count).table('all/coco', repo / 'configs/fam'))
    assert header[1:3] == ['method', 'schedule']
    assert header[3:] == [
        'parameters of the model, computed here',
        'MACs of the backbone at 800 × 1280, computed here',
    ]
    assert row[:3] == [
        '[fam-a_mask-rcnn_1x_coco](fam-a_mask-rcnn_1x_coco.py)',
        'Mask R-CNN',
        '1x',
    ]
    assert row[4] == '1.02 G'


def test_only_what_stands_between_markers_is_rewritten(repo):
    zoo = Zoo(repo, count)
    names = [
        'README.md: all/coco',
        'configs/fam/README.md: fam/in1k',
        'configs/fam/README.md: fam/coco',
    ]
    assert stale_tables(zoo) == names
    assert 'old' in (repo / 'README.md').read_text()
    assert update_readmes(zoo) == names
    assert stale_tables(zoo) == update_readmes(zoo) == []
    text = (repo / 'README.md').read_text()
    assert text.startswith('above\n<!-- zoo:begin all/coco -->\n| config |')
    assert text.endswith('|\n<!-- zoo:end all/coco -->\nbelow\n')
    assert 'old' not in text


def look(config):
    """Tie fam-b to no size, the others to windows of 224 and then 112 x 224 pixels."""
    if 'fam-b' in config.name:
        return GridFacts(strides=(4, 8), windows=(), modes=())
    return GridFacts(strides=(4, 8), windows=((224, 224), (112, 224)), modes=('window', 'strict'))


def cost(config, trained):
    """Return a MAC per pixel and million; two modes for fam-c."""
    images = ((512, 512), (512, 1024), (800, 1344))
    modes = {'fam-b': [''], 'fam-c': ['window', 'resize']}.get(config.stem[:5], ['window'])
    return {
        mode: {(h, w): ImageCost(macs=h * w * 10**6, factor=h / trained[0]) for h, w in images}
        for mode in modes
    }


@pytest.fixture
def sized(repo):
    """The repository with a variant that has the grid of fam-a, and one of another family."""
    models = [entry('fam-c_in1k'), entry('fam-a_in1k-some')]
    for model in models:
        (repo / f'configs/fam/{model["Name"]}.py').touch()
    paper = {'Title': 'A Title', 'URL': 'https://example.org/p'}
    metafile = {'Collections': [{'Name': 'Fam', 'Paper': paper}], 'Models': [*MODELS, *models]}
    (repo / 'configs/fam/metafile.yml').write_text(yaml.safe_dump(metafile))
    (repo / 'configs/two').mkdir()
    (repo / 'configs/two/two-x_in1k.py').touch()
    model = {**entry('two-x_in1k'), 'In Collection': 'Two', 'Config': 'configs/two/two-x_in1k.py'}
    metafile = {'Collections': [{'Name': 'Two'}], 'Models': [model]}
    (repo / 'configs/two/metafile.yml').write_text(yaml.safe_dump(metafile))
    return Zoo(repo, count, look, cost)


def test_a_table_of_families(sized, repo):
    header, _, *body = rows(sized.table('all/families', repo / 'configs'))
    assert header == [
        'family',
        'paper',
        'variants',
        'parameters, computed here',
        'strides',
        'pixels of a window',
    ]
    windows = '224, 112 × 224'
    assert body == [
        [
            '[Fam](fam/README.md)',
            '[A Title](https://example.org/p)',
            '`a` `b` `c`',
            '2.0 M',
            '4, 8',
            f'{windows} or none: any size',
        ],
        ['[Two](two/README.md)', '–', '`x`', '2.0 M', '4, 8', windows],
    ]


def test_a_table_of_variants(sized, repo):
    header, _, *body = rows(sized.table('fam/variants', repo))
    assert header == [
        'variant',
        'strides',
        'pixels of a window',
        '`grid_mode`',
        'image',
        'parameters, computed here',
        'MACs, computed here',
        'Parameters, published',
    ]
    assert [row[0].partition(']')[0] for row in body] == [
        '[fam-a_in1k',
        '[fam-b_in1k',
        '[fam-c_in1k',
    ]
    assert body[0][1:] == [
        '4, 8',
        '224, 112 × 224',
        '`window` `strict`',
        '224 × 224',
        '2.00 M',
        '0.05 G',
        '2M',
    ]
    assert body[1][2:4] == ['none: any size', '–']


def test_a_variant_whose_figures_are_off_says_why_in_its_row(repo):
    published = {'Parameters': '3M', 'Source': {'Name': 'Some', 'URL': 'https://example.org'}}
    (repo / 'configs/fam/fam-c_in1k.py').touch()
    models = [
        *MODELS,
        entry('fam-c_in1k', Published={'MACs': '0.1G'}),  # counted: 0.05
    ]
    models[1] = entry('fam-b_in1k', Published=published, Note='They count twice.')
    metafile = {'Collections': [{'Name': 'Fam'}], 'Models': models}
    (repo / 'configs/fam/metafile.yml').write_text(yaml.safe_dump(metafile))
    header, _, *body = rows(Zoo(repo, count, look, cost).table('all/variants', repo))
    assert header[-3:] == ['Parameters, published', 'MACs, published', 'why they differ']
    assert body[0][-3:] == ['2M', '–', '']
    assert body[1][-3:] == [
        '3M ([Some](https://example.org))',
        '–',
        'Parameters -33.3 %. They count twice.',
    ]
    why = 'MACs -49.8 % (rounded: 0.050 G prints as 0.1G)'
    assert body[2][-3:] == ['–', '0.1G', why]


def test_a_table_of_images_has_a_row_per_grid(sized, repo):
    header, _, *body = rows(sized.table('all/images', repo))
    assert header == [
        'counted on',
        'same grid',
        '512 × 512',
        '512 × 1024',
        '800 × 1344',
    ]
    assert [(row[0].partition(']')[0], row[1]) for row in body] == [
        ('[fam-a_in1k', '`c`'),
        ('[fam-b_in1k', '–'),
        ('[two-x_in1k', '–'),
    ]
    assert body[0][2:] == ['2.29 × (262.1 G)', '2.29 × (524.3 G)', '3.57 × (1075.2 G)']


def test_a_mode_beside_the_default_has_columns_of_its_own(sized, repo):
    (repo / 'configs/fam/fam-a_in1k.py').unlink()
    models = [entry('fam-c_in1k'), *MODELS[1:], entry('fam-a_in1k-some')]
    metafile = {'Collections': [{'Name': 'Fam'}], 'Models': models}
    (repo / 'configs/fam/metafile.yml').write_text(yaml.safe_dump(metafile))
    _, _, first, *_ = rows(Zoo(repo, count, look, cost).table('fam/images', repo))
    assert first[2:] == [
        '2.29 × (262.1 G)',
        '2.29 × (262.1 G)',
        '2.29 × (524.3 G)',
        '2.29 × (524.3 G)',
        '3.57 × (1075.2 G)',
        '3.57 × (1075.2 G)',
    ]


@pytest.mark.parametrize(
    'text',
    [
        '<!-- zoo:begin fam/coco -->',
        '<!-- zoo:end fam/coco --><!-- zoo:begin fam/coco -->',
        '<!-- zoo:begin fam/coco --><!-- zoo:end fam/in1k -->',
    ],
)
def test_unpaired_markers_are_refused_and_nothing_is_written(repo, text):
    readme = repo / 'configs/fam/README.md'
    readme.write_text(text)
    with pytest.raises(UserError, match='pairs'):
        update_readmes(Zoo(repo, count))
    assert readme.read_text() == text
    assert 'old' in (repo / 'README.md').read_text()


def test_an_unknown_table_is_named_beside_the_known(repo):
    (repo / 'README.md').write_text(HEAD.format('fam/voc'))
    known = (
        'all/coco, all/families, all/images, all/in1k, all/variants, '
        'fam/coco, fam/images, fam/in1k, fam/variants'
    )
    with pytest.raises(UserError, match=f'fam/voc.* {known}$'):
        stale_tables(Zoo(repo, count))


def test_several_sizes_stand_in_a_column(repo):
    models = [entry('fam-a224_in1k'), entry('fam-a256_in1k-some')]
    for model in models:
        (repo / f'configs/fam/{model["Name"]}.py').touch()
    metafile = {'Collections': [{'Name': 'Fam'}], 'Models': [*MODELS, *models]}
    (repo / 'configs/fam/metafile.yml').write_text(yaml.safe_dump(metafile))
    header, _, *body = rows(Zoo(repo, count).table('fam/in1k', repo))
    assert header[2:4] == ['image', 'MACs of the model, computed here']
    assert [row[2:4] for row in body[-2:]] == [['224 × 224', '0.05 G'], ['256 × 256', '0.07 G']]


def test_one_table_counts_one_part(repo):
    def mixed(config, size):
        part = 'model' if 'fam-a' in config.name else 'backbone'
        return Complexity(params=1, macs=1, counted=part)

    with pytest.raises(UserError, match=r'in1k: one table .* backbone and model'):
        Zoo(repo, mixed).table('fam/in1k', repo)


def test_every_config_stands_in_its_familys_readme_and_on_the_page_of_all(root):
    for one in Zoo(root, count).entries:
        for readme in (one.config.parent / 'README.md', root / 'configs/README.md'):
            path = one.config.relative_to(readme.parent).as_posix()
            assert f'({path})' in readme.read_text(), f'{readme} has no row of {one.name}'


@pytest.mark.long
def test_the_tables_of_this_repository_are_current(repository):
    assert stale_tables(repository) == [], 'run `make zoo`'


@pytest.mark.parametrize(
    ('page', 'names'),
    [
        ('README.md', {'all/families'}),
        (
            'configs/README.md',
            {'all/variants', 'all/images', 'all/in1k', 'all/coco', 'all/ade20k', 'all/cityscapes'},
        ),
    ],
)
def test_the_first_pages_show_all_families(root, page, names):
    text = (root / page).read_text()
    assert {name for name in names if f'<!-- zoo:begin {name} -->' not in text} == set()


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capsys):
    """Run tools/update_zoo.py on ``tmp_path``: (exit code, standard output, error output)."""
    spec = importlib.util.spec_from_file_location('update_zoo', root / 'tools/update_zoo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv('LOCAL_RANK', '0')  # which the tool would set for good

    def run(*options):
        capsys.readouterr()
        monkeypatch.setattr(sys, 'argv', ['update_zoo.py', '--root', str(tmp_path), *options])
        code = 0
        try:
            run_tool(module.main, module.parser())
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


def test_the_tool_checks_and_mends(tool, tmp_path):
    """On a repository of one small config, counted in earnest."""
    folder = tmp_path / 'configs/wavemlp'
    folder.mkdir(parents=True)
    (folder / 'wavemlp-x_in1k.py').write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='mmwave.WaveMLP', "
        'out_indices=(3,), arch=dict(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4))))\n'
    )
    model = {**entry('wavemlp-x_in1k'), 'Config': 'configs/wavemlp/wavemlp-x_in1k.py'}
    metafile = {'Collections': [{'Name': 'Fam'}], 'Models': [model]}
    (folder / 'metafile.yml').write_text(yaml.safe_dump(metafile))
    readme = tmp_path / 'README.md'
    readme.write_text(HEAD.format('wavemlp/in1k'))

    assert tool('--check')[:2] == (1, 'stale: README.md: wavemlp/in1k\n')
    assert 'old' in readme.read_text()
    assert tool()[:2] == (0, 'rendered README.md: wavemlp/in1k\n')
    assert tool('--check')[:2] == (0, 'all tables are current\n')
    readme.write_text(readme.read_text().replace(' M |', '1 M |', 1))
    assert tool('--check')[0] == 1
    (folder / 'metafile.yml').unlink()
    code, out, errors = tool('--check')
    assert (code, out) == (2, '')
    assert errors.startswith('error: no metafile.yml')


def test_the_list_of_metafiles_is_kept_current(repo):
    zoo = Zoo(repo, count)
    update_readmes(zoo)
    assert stale_tables(zoo) == []  # where there is no list, none is written
    index = repo / 'model-index.yml'
    index.write_text('Import: []\n')
    assert stale_tables(zoo) == ['model-index.yml']
    assert update_readmes(zoo) == ['model-index.yml']
    assert yaml.safe_load(index.read_text()) == {'Import': ['configs/fam/metafile.yml']}
    assert stale_tables(zoo) == []


def test_the_repository_lists_every_metafile(root):
    assert (root / 'model-index.yml').read_text() == model_index(root)
    assert model_index(root).count('\n  - ') == len(list(root.glob('configs/*/metafile.yml')))
