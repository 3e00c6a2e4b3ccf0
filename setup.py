"""The build step: what setup.cfg, which holds all metadata, cannot say.

A wheel holds configs, tools and ``model-index.yml`` in ``mmwave/.mim``, where OpenMMLab's
libraries have theirs; an editable install uses those of the checkout.
"""

import configparser
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
OF_THE_CHECKOUT = ('setup_env.sh', 'update_zoo.py')
_LINK = re.compile(r'(!?)\[((?:!\[[^\]]*\]\([^)]*\)|[^\]])*)\]\((?!https?:)([^)\s]+)\)')
_CODE = re.compile(r'(^```.*?^```$)', re.MULTILINE | re.DOTALL)


def shipped() -> list[Path]:
    """Return the files of ``mmwave/.mim``, relative to the root."""
    paths = [ROOT / 'model-index.yml', *ROOT.glob('configs/**/*'), *ROOT.glob('tools/*')]
    suffixes = ('.md', '.py', '.sh', '.yml')
    return sorted(
        path.relative_to(ROOT)
        for path in paths
        if path.suffix in suffixes and path.name not in OF_THE_CHECKOUT
    )


def long_description(text: str, address: str = '') -> str:
    """Return the README for a page outside the repository.

    Args:
        text: the README.
        address: of the repository, ``url`` in setup.cfg. Relative links and pictures start there;
            without one they become text.
    """

    def outside(link: re.Match) -> str:
        picture, label, target = link.groups()
        label = _LINK.sub(outside, label)  # of a picture that is a link
        if address and not target.startswith('#'):
            return f'{picture}[{label}]({address}/{"raw" if picture else "blob"}/HEAD/{target})'
        return f'*{label}*' if picture else label

    parts = _CODE.split(text)  # code at the odd places
    parts[::2] = [_LINK.sub(outside, part) for part in parts[::2]]
    return ''.join(parts)


class BuildWithConfigs(build_py):
    """Copy configs and tools beside the built package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, 'mmwave/.mim')
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build
        for path in shipped():
            self.mkpath(str(folder / path.parent))
            self.copy_file(str(ROOT / path), str(folder / path))


if __name__ == '__main__':
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'setup.cfg', encoding='utf-8')
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    setup(
        cmdclass={'build_py': BuildWithConfigs},
        long_description=long_description(readme, settings['metadata'].get('url', '')),
    )
