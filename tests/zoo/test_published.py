"""Published figures beside computed ones: a row that is off says why."""

import pytest
import yaml

from mmwave.errors import UserError
from mmwave.zoo import Complexity, Zoo, deviation


@pytest.mark.parametrize(
    ('printed', 'counted'),
    [
        ('15M', 15_286_000),  # 1.9 %
        ('15M', 15_300_000),  # 2 %
        ('15M', 15_499_999),  # 3.3 %, and rounds to 15
        ('15M', 14_500_000),
        ('2.1G', 2_149_999_999),
        ('2G', 1_500_000_000),
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
    assert deviation(printed, counted) == pytest.approx(off, abs=1e-4)


@pytest.mark.parametrize('printed', ['', '15', '15 M', 'M', '1.M', '-3M', '15k', '3,1M'])
def test_other_texts_are_refused(printed):
    with pytest.raises(UserError, match=r"no figure: expected .* M, G, B, such as '38.3M'"):
        deviation(printed, 1)


@pytest.fixture
def zoo(tmp_path):
    """Writes one model with some metadata, counted as 2 M parameters and 1 G MACs."""

    def write(**metadata):
        folder = tmp_path / 'configs/fam'
        folder.mkdir(parents=True)
        (folder / 'fam-a_in1k.py').touch()
        model = {'Name': 'fam-a_in1k', 'In Collection': 'Fam', 'Metadata': metadata}
        model['Config'] = 'configs/fam/fam-a_in1k.py'
        metafile = {'Collections': [{'Name': 'Fam'}], 'Models': [model]}
        (folder / 'metafile.yml').write_text(yaml.safe_dump(metafile, sort_keys=False))
        return Zoo(tmp_path, lambda *_: Complexity(params=2_000_000, macs=10**9, counted='model'))

    return write


def test_a_row_that_is_off_without_a_reason_is_refused(zoo, tmp_path):
    published = {'Parameters': '2.1M', 'MACs': '1.05G'}
    message = r'fam-a_in1k: .*\(Parameters -4.8 %, MACs -4.8 %\): say why under Metadata: Note'
    with pytest.raises(UserError, match=message):
        zoo(Published=published).table('fam/in1k', tmp_path)


def test_a_row_that_is_off_says_why(zoo, tmp_path):
    rows = zoo(Published={'Parameters': '2.0M', 'MACs': '1.1G'}, Note='They count norms.')
    (entry,) = rows.entries
    assert rows.deviations(entry) == {'MACs': pytest.approx(-1 / 11)}
    assert '1.1G' in rows.table('fam/in1k', tmp_path)


def test_a_reason_is_not_asked_where_figures_agree(zoo, tmp_path):
    rows = zoo(Published={'Parameters': '2M', 'MACs': '1.0B'})
    assert rows.deviations(*rows.entries) == {}


def test_rows_of_this_repository_that_are_off(repository):
    off = {entry.name: set(repository.deviations(entry)) for entry in repository.entries}
    assert {name: keys for name, keys in off.items() if keys} == {
        'wavemlp-t-dw_in1k': {'MACs'},
        'wavemlp-t_in1k': {'MACs'},
        'wavemlp-s_in1k': {'Parameters'},
        'resmlp-s36_in1k': {'Parameters', 'MACs'},
    }
    assert sum(len(entry.published) for entry in repository.entries) == 27
