"""Loads the model in a thread, so that the node answers services and signals meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.options import RuntimeOptions

Load = Callable[[str, RuntimeOptions], Grounder]


class ModelLoader:
    """Loads one model at a time. The thread is a daemon: a process that is asked to end does not wait for
    it."""

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
        """Whether `take` would return, or raise, at once."""
        return self._future is not None and self._future.done()

    @property
    def seconds(self) -> float:
        """Seconds since loading began."""
        return monotonic() - self._begun

    def begin(self, model: str, options: RuntimeOptions) -> bool:
        """Start to load, unless a model is being loaded or waits to be taken; whether it was started."""
        if self._future is not None:
            return False
        future: Future[Grounder] = Future()
        self._future, self._begun = future, monotonic()

        def run() -> None:
            try:
                grounder = self._load(model, options)
            except Exception as error:  # raised by `take`
                future.set_exception(error)
            else:
                future.set_result(grounder)

        threading.Thread(target=run, name="groma_loader", daemon=True).start()
        return True

    def take(self) -> Grounder:
        """The model, waited for. Raises what loading raised; the next `begin` loads anew."""
        assert self._future is not None, "begin comes first"
        try:
            return self._future.result()
        finally:
            self._future = None

    def forget(self) -> None:
        """Let go of a model that nobody took; one that is still being loaded is dropped when it is there."""
        self._future = None
