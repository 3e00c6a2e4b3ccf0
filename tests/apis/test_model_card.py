"""The header of a model card, and that it states what is known alone."""

import yaml

from mmwave.apis.model_card import model_card

FACTS = {'pipeline_tag': 'image-segmentation', 'scope': 'mmseg', 'size': 1234}
META = {
    'licence': '',
    'dataset_meta': {'classes': [f'class{i}' for i in range(25)]},
    'preprocessing': {'mean': [1.5, 2, 3], 'to_rgb': True},
    'task': 'semantic segmentation',
    'cfg': 'a = 1',
    'config_name': 'my',
    'backbone': {'type': 'mmwave.WaveMLP'},
    'measured': {'metrics': {'mIoU': 17.5, 'aAcc': 1.0}, 'data': {'type': 'ADE20KDataset'}},
    'trained': {'epoch': 2, 'iter': 12},
    'versions': {'torch': '2.9'},
    'published_with': {'torch': '2.10'},
    'weights': 'averaged',
    'source': 'epoch_2.pth',
    'sha256': 'ab' * 32,
}


def parted(text):
    """The header, read, and the text below."""
    empty, header, body = text.split('---\n', 2)
    assert empty == ''
    return yaml.safe_load(header), body


def test_a_card():
    header, body = parted(model_card('my', 'my-01234567.safetensors', META, FACTS))
    assert header == {
        'license': None,
        'library_name': 'mmwave',
        'tags': ['mmwave', 'vision-mlp', 'mmsegmentation', 'WaveMLP'],
        'pipeline_tag': 'image-segmentation',
        'metrics': ['mean_iou'],
    }
    for text in (
        '# my\n',
        'Semantic segmentation, with the backbone WaveMLP. The weights are the averaged ones',
        '| mIoU | 17.5 |',
        'at epoch 2, iter 12',
        'type: ADE20KDataset',
        'mmwave test my.py my-01234567.safetensors',
        "checkpoint='my-01234567.safetensors'",
        '25: class0,',
        'class19 and 5 more |',
        '| mean | 1.5, 2, 3 |',
        '| trained with | torch 2.9 |',
        'ab' * 32,
    ):
        assert text in body
    assert 'No metrics' not in body


def test_what_is_unknown_is_not_stated():
    meta = {'source': 'a.pth', 'sha256': '', 'weights': 'raw', 'licence': 'MIT'}
    header, body = parted(model_card('a', 'a-01234567.pth', meta, {'size': 1}))
    assert header == {
        'license': 'MIT',
        'library_name': 'mmwave',
        'tags': ['mmwave', 'vision-mlp'],
    }
    assert 'No metrics of these weights are known.' in body
    assert 'mmwave test CONFIG a-01234567.pth' in body
    for word in ('classes', 'mean', 'averaged', 'trained with', 'None'):
        assert word not in body


def test_texts_of_a_file_forge_nothing():
    meta = {
        **META,
        'dataset_meta': {'classes': ['a|b\n# c', '<script>']},
        'backbone': {'type': 'x\n---\nlicense: mit'},
        'measured': {'metrics': {'m|x\n': 1.0}, 'data': {'type': '[a](b)'}},
    }
    header, body = parted(model_card('my', 'my-01234567.safetensors', meta, FACTS))
    assert header['license'] is None
    assert '\n# c' not in body
    assert '<script' not in body.replace(r'\<script', '')
    assert r'| m\|x' in body
