"""The predictions of a test, written to a file."""

import pickle
from pathlib import Path
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.logging import print_log

from mmwave.checkpoint import whole_file
from mmwave.errors import printable_path
from mmwave.registry import METRICS


@METRICS.register_module()
class DumpWhole(DumpResults):
    """mmengine's ``DumpResults``, which leaves an older file alone until the new one is whole.

    Raises:
        UserError: at the end of the test, where the file cannot be written.
    """

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Write the predictions of all images."""
        with whole_file(Path(self.out_file_path).expanduser()) as file:
            pickle.dump(results, file)
        print_log(
            f'predictions are written to {printable_path(self.out_file_path)}', logger='current'
        )
        return {}
