"""The registries of scope ``mmwave``, children of mmengine's.

mmengine imports this very module by its name when it meets ``type='mmwave.X'``, and the registries
import their ``locations`` when they are first asked; so a config needs no ``custom_imports``.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmwave', locations=['mmwave.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmwave', locations=['mmwave.engine.hooks'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmwave',
    locations=['mmwave.engine.optim_wrapper'],
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='mmwave', locations=['mmwave.engine.results']
)
