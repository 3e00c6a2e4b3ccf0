"""How much of the steps' time goes by waiting for data."""


class LoadingShare:
    """The share of loading in the time of steps, over windows of them.

    Args:
        first: steps that are left out: loaders and caches fill.
        window: steps that are looked at together.
    """

    def __init__(self, first: int = 20, window: int = 100) -> None:
        self._to_skip = first
        self._window = window
        self._steps = 0
        self._loading = self._total = 0.0

    def add(self, loading: float, total: float) -> float | None:
        """Add a step.

        Args:
            loading: seconds of it.
            total: seconds of the whole step.

        Returns:
            The share at the end of a window, else None.
        """
        if self._to_skip > 0:
            self._to_skip -= 1
            return None
        self._steps += 1
        self._loading += loading
        self._total += total
        if self._steps < self._window:
            return None
        share = self._loading / self._total if self._total > 0 else 0.0
        self._steps, self._loading, self._total = 0, 0.0, 0.0
        return share
