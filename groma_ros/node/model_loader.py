"""Load the model in a thread, so that the node can answer services and signals meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.options import RuntimeOptions

Load = Callable[[str, RuntimeOptions], Grounder]


class ModelLoader:
    """Loads one model at a time, in a daemon thread so that the process can exit during a load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._future: Future[Grounder] | None = None
        self._begun = 0.0

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._future is not None and not self._future.done()

    @property
    def ready(self) -> bool:
        """Whether `take` would return or raise without waiting."""
        return self._future is not None and self._future.done()

    @property
    def seconds(self) -> float:
        """Seconds since loading started."""
        return monotonic() - self._begun

    def begin(self, model: str, options: RuntimeOptions) -> bool:
        """Start loading, unless a model is being loaded or waits to be taken. Returns whether it started."""
        if self._future is not None:
            return False
        future: Future[Grounder] = Future()
        self._future, self._begun = future, monotonic()

        def run() -> None:
            try:
                grounder = self._load(model, options)
            except Exception as error:  # re-raised by `take`
                future.set_exception(error)
            else:
                future.set_result(grounder)

        threading.Thread(target=run, name="groma_loader", daemon=True).start()
        return True

    def take(self) -> Grounder:
        """Wait for the model and return it. Re-raises an error of loading; the next `begin` tries again."""
        assert self._future is not None, "begin comes first"
        try:
            return self._future.result()
        finally:
            self._future = None

    def forget(self) -> None:
        """Drop a model that has not been taken, also one that is still being loaded."""
        self._future = None
