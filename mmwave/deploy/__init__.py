"""Train form -> deploy form: the same function with norms and branches folded away."""

from .api import Deployable, DeployReport, to_deploy

__all__ = ['DeployReport', 'Deployable', 'to_deploy']
