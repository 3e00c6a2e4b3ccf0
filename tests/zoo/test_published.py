"""Published figures beside computed ones: a row that is off says why."""

import pytest
import yaml

from mmwave.errors import UserError
from mmwave.zoo import Complexity, Deviation, Zoo, deviation


@pytest.mark.parametrize(
    ('printed', 'counted'),
    [
        ('15M', 15_286_000),  # 1.9 %
        ('15M', 15_300_000),  # 2 %
        ('15M', 14_700_000),
        ('11.5B', 11_608_716_288),
        ('38.3M', 38_294_000),
    ],
)
def test_figures_that_agree(printed, counted):
    assert deviation(printed, counted) is None


@pytest.mark.parametrize(
    ('printed', 'counted', 'off'),
    [
        ('15M', 15_500_000, 1 / 30),
        ('15M', 14_499_999, -1 / 30),
        ('2.1G', 2_163_100_000, 0.03005),
        ('30M', 30_708_000, 0.0236),
        ('38.3M', 39_070_000, 0.0201),
        ('23B', 8_910_000_000, -0.6126),
    ],
)
def test_figures_that_do_not(printed, counted, off):
    assert deviation(printed, counted) == Deviation(
        relative=pytest.approx(off, abs=1e-4), reason=''
    )


@pytest.mark.parametrize(
    ('printed', 'counted', 'off', 'shown'),
    [
        ('2G', 2_450_000_000, 0.225, '2.45 G'),
        ('2G', 1_500_000_000, -0.25, '1.50 G'),
        ('9B', 8_560_000_000, -0.0489, '8.56 G'),
        ('15M', 15_310_000, 0.0207, '15.31 M'),
        ('15M', 14_500_000, -1 / 30, '14.50 M'),
        ('2.1G', 2_149_000_000, 0.0233, '2.149 G'),
        # In fewer digits it would round the other way.
        ('15M', 15_499_600, 0.0333, '15.4996 M'),
        ('2G', 2_499_999_999, 0.25, '2.499999999 G'),
    ],
)
def test_rounding_is_a_reason(printed, counted, off, shown):
    assert deviation(printed, counted) == Deviation(
        relative=pytest.approx(off, abs=1e-4), reason=f'rounded: {shown} prints as {printed}'
    )


@pytest.mark.parametrize('printed', ['', '15', '15 M', 'M', '1.M', '-3M', '15k', '3,1M', '0M'])
def test_other_texts_are_refused(printed):
    with pytest.raises(UserError, match=r"no figure: expected .* M, G, B, such as '38.3M'"):
        deviation(printed, 1)


@pytest.fixture
def zoo(tmp_path):
    """Writes one model with some metadata, counted as 2 M parameters, or others, and 1 G MACs."""

    def write(*, params=2_000_000, **metadata):
        folder = tmp_path / 'configs/fam'
        folder.mkdir(parents=True)
        (folder / 'fam-a_in1k.py').touch()
        model = {'Name': 'fam-a_in1k', 'In Collection': 'Fam', 'Metadata': metadata}
        model['Config'] = 'configs/fam/fam-a_in1k.py'
        metafile = {'Collections': [{'Name': 'Fam'}], 'Models': [model]}
        (folder / 'metafile.yml').write_text(yaml.safe_dump(metafile, sort_keys=False))
        return Zoo(tmp_path, lambda *_: Complexity(params=params, macs=10**9, counted='model'))

    return write


def test_a_row_that_is_off_without_a_reason_is_refused(zoo, tmp_path):
    published = {'Parameters': '2.1M', 'MACs': '1.05G'}
    message = r'fam-a_in1k: .*\(Parameters -4.8 %, MACs -4.8 %\): say why under Metadata: Note'
    with pytest.raises(UserError, match=message):
        zoo(Published=published).table('fam/in1k', tmp_path)


def test_a_row_that_is_off_says_why(zoo, tmp_path):
    rows = zoo(Published={'Parameters': '2.0M', 'MACs': '1.1G'}, Note='They count norms.')
    (entry,) = rows.entries
    assert rows.deviations(entry) == {'MACs': Deviation(relative=pytest.approx(-1 / 11), reason='')}
    assert '1.1G' in rows.table('fam/in1k', tmp_path)


def test_a_row_that_is_only_rounded_needs_no_note(zoo):
    rows = zoo(Published={'Parameters': '2M', 'MACs': '1G'}, params=2_450_000)
    (off,) = rows.deviations(*rows.entries).items()
    rounded = 'rounded: 2.45 M prints as 2M'
    assert off == ('Parameters', Deviation(relative=pytest.approx(0.225), reason=rounded))


def test_a_rounded_figure_does_not_excuse_the_other(zoo):
    rows = zoo(Published={'Parameters': '2M', 'MACs': '1.1G'}, params=2_450_000)
    with pytest.raises(UserError, match=r'\(MACs -9.1 %\): say why under Metadata: Note'):
        rows.deviations(*rows.entries)


def test_a_reason_is_not_asked_where_figures_agree(zoo, tmp_path):
    rows = zoo(Published={'Parameters': '2M', 'MACs': '1.0B'})
    assert rows.deviations(*rows.entries) == {}


def test_rows_of_this_repository_that_are_off(repository):
    off = {entry.name: set(repository.deviations(entry)) for entry in repository.entries}
    known = {
        'wavemlp-t-dw_in1k': {'MACs'},
        'wavemlp-t_in1k': {'MACs'},
        'wavemlp-s_in1k': {'Parameters'},
        'wavemlp-m_in1k': set(),
        'resmlp-s36_in1k': {'Parameters', 'MACs'},
    }
    assert {name: off[name] for name in known} == known
    assert sum(len(entry.published) for entry in repository.entries) >= 27
