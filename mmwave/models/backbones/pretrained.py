"""Loading weights into a backbone: of the right family, form and settings, and loudly."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from mmengine.logging import print_log

from mmwave.checkpoint import (
    brief,
    equals,
    load_matching,
    not_finite_line,
    read_checkpoint,
    state_dict_of,
)
from mmwave.errors import UserError, printable, printable_path
from mmwave.models.deployed import find_deployed_family, form_of
from mmwave.models.layers import Module

from .arch import resolve_arch


class PretrainedModule(Module):
    """A module that loads weights which state what they are for.

    Attributes:
        archs: the family's named archs.
        published: settings that a converted file stands for where it names none.
        adaptable: those that weights may be loaded with another value of, with a warning: training
            adapts them.
        deploy: whether this is the deploy form.
    """

    archs: ClassVar[Mapping[str, Any]]
    published: ClassVar[Mapping[str, Any]]
    adaptable: ClassVar[frozenset[str]] = frozenset()
    deploy: bool

    def init_weights(self) -> None:
        given = self.init_cfg
        entries = [given] if isinstance(given, Mapping) else list(given or ())
        self.init_cfg = [e for e in entries if not _is_pretrained(e)] or None
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        for entry in filter(_is_pretrained, entries):
            options = {
                k: entry[k] for k in ('prefix', 'trust', 'may_differ') if entry.get(k) is not None
            }
            self.load_pretrained(entry['checkpoint'], **options)

    def load_pretrained(
        self,
        path: str,
        *,
        prefix: str | None = None,
        trust: bool = False,
        may_differ: Sequence[str] = (),
    ) -> None:
        """Load the tensors of the file that match by name and shape, and log how many did.

        Args:
            path: a local ``.safetensors`` or torch file.
            prefix: what the backbone's names begin with in the file, with or without the last dot.
                By default ``backbone.`` where the file has such names, else nothing.
            trust: read a file that runs code when it is read.
            may_differ: what the names of the backbone's tensors begin with that may have another
                shape in the file; they are left as they were.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: where under half of this backbone's tensors are in the file, one has another
                shape there, some of them hold NaN or infinite values, or the file was converted for
                other settings than this backbone's, or would run code when read.
        """
        if '://' in path:
            raise UserError(
                f'pretrained weights must be a local file, not {path!r}: download it first'
            )
        if not path:
            raise UserError('the path of the pretrained weights is empty')
        content = read_checkpoint(path, trust=trust)
        self.check_settings(content, path)
        state = state_dict_of(content)
        if prefix is None:
            prefix = 'backbone' if any(k.startswith('backbone.') for k in state) else ''
        prefix = f'{prefix.removesuffix(".")}.' if prefix else ''
        report = load_matching(self, state, prefix=prefix, source=path, may_differ=may_differ)
        if report.not_finite:
            raise UserError(
                f'{printable_path(path)} holds no weights to start from: '
                f'{not_finite_line(dict(report.not_finite))}'
            )
        print_log(report.summary(), logger='current')

    def check_form(self, names: Collection[str]) -> None:
        """Raise ``ValueError`` where weights of these names are of the other form."""
        mine = 'deploy' if self.deploy else 'train'
        family = find_deployed_family(type(self))
        theirs = None if family is None else form_of(names, family)
        if theirs in (None, mine):
            return
        cure = (
            'build the model with deploy=True'
            if theirs == 'deploy'
            else 'convert them with tools/to_deploy.py, or build the model with deploy=False'
        )
        raise UserError(
            f'the weights are in {theirs} form, this {type(self).__name__} is in {mine} form: '
            f'{cure}'
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Every way of loading ends here, mmengine's own included.
        self.check_form([k.removeprefix(prefix) for k in state_dict if k.startswith(prefix)])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check_settings(self, content: Any, source: str) -> None:
        """Compare what a converter noted in a checkpoint (its arch, its GELU) with this backbone.

        Raises:
            ValueError: where the checkpoint is of another family, or of other settings.
        """
        meta = content.get('meta') if isinstance(content, Mapping) else None
        noted = meta.get('backbone') if isinstance(meta, Mapping) else None
        if not isinstance(noted, Mapping):
            return
        source = printable_path(source)
        strange = [name for name in noted if not isinstance(name, str)]
        if strange:
            raise UserError(f'{source} names a setting of its backbone {brief(strange[0])}')
        kind = noted.get('type', '')
        if not isinstance(kind, str):
            raise UserError(f'{source} is of a backbone with type={brief(kind)}, no name')
        family = kind.rpartition('.')[2]
        if family and family not in {c.__name__ for c in type(self).__mro__}:
            raise UserError(
                f'{source} is of a {printable(family, 80)}, this backbone is a '
                f'{type(self).__name__}'
            )
        wanted = {'deploy': False, **self.published, **noted}
        if 'arch' in wanted:
            try:
                wanted['arch'] = resolve_arch(wanted['arch'], self.archs)
            except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f'{source} is of a backbone with arch={brief(wanted["arch"])}, which is none '
                    f'of a {type(self).__name__}: {printable(error)}'
                ) from error
        for name in sorted(wanted.keys() - {'type'}):
            mine = getattr(self, name, wanted[name])
            if mine is wanted[name] or equals(mine, wanted[name]):
                continue
            difference = (
                f'{source} is of a backbone with {printable(name, 80)}='
                f'{brief(wanted[name], 200)}, this one has {printable(name, 80)}={brief(mine, 200)}'
            )
            if name not in self.adaptable:
                raise UserError(difference)
            print_log(
                f'{difference}: without further training its outputs are not those of the file',
                logger='current',
                level=logging.WARNING,
            )


def _is_pretrained(entry: Mapping[str, Any]) -> bool:
    kind = entry.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2] in ('Pretrained', 'PretrainedInit')
