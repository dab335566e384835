"""Run a model over many items, in this process or in several on CPU or GPUs, and resume interrupted runs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groma_ros.grounding.calibration import Calibration
from groma_ros.grounding.grounder import Grounder
from groma_ros.journal import Journal
from groma_ros.preprocessing import RESIZES, Resize
from groma_ros.progress import shown
from groma_ros.runtime.bundle import Bundle, read_network
from groma_ros.runtime.options import RuntimeChoice, RuntimeOptions
from groma_ros.worker_pool import map_in_processes

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OF_THE_ORIGINAL: dict[str, Resize] = {"published": "bilinear", "demo": "bicubic"}
Record = dict[str, Any]
Work = Callable[[Grounder, Any], Record]


@dataclass(frozen=True)
class ModelChoice:
    """The model to evaluate and how to run it; pickled to the worker processes."""

    directory: Path
    """Folder of the bundle."""
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    min_presence: float | None = None
    """Presence below which a goal is reported absent; None for the default."""
    resize: str = "own"
    """One of `preprocessing.RESIZES`, or "own" for the bundle's.

    For weights of the published geometry "published" selects the resize of the original evaluations
    (bilinear) and "demo" that of the original demo and chat (bicubic); for other weights both select the
    bundle's.
    """
    calibration: Calibration | None = None
    """Replaces the calibration of the manifest."""

    def bundle(self) -> Bundle:
        """Load the bundle with the chosen resize. Raises BundleError, or ValueError for an unknown resize."""
        bundle = Bundle.load(self.directory)
        resize: Resize = bundle.image.resize
        if self.resize in _OF_THE_ORIGINAL and read_network(bundle).region.geometry == "published":
            resize = _OF_THE_ORIGINAL[self.resize]
        elif self.resize in RESIZES:
            resize = self.resize
        elif self.resize not in ("own", *_OF_THE_ORIGINAL):
            raise ValueError(
                f"The resize {self.resize!r} is unknown; use one of own, "
                f"{', '.join((*_OF_THE_ORIGINAL, *RESIZES))}."
            )
        return dataclasses.replace(bundle, image=dataclasses.replace(bundle.image, resize=resize))

    def with_options(self, **changes: Unpack[RuntimeChoice]) -> ModelChoice:
        """Return the same model with changed runtime options."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))

    def load(self) -> Grounder:
        """Load the model."""
        return Grounder.load(
            self.bundle(), self.options, min_presence=self.min_presence, calibration=self.calibration
        )


@dataclass(frozen=True)
class EvaluationPlan:
    """How a run is distributed."""

    jobs: int = 1
    """Number of processes."""
    devices: tuple[str, ...] = ()
    """Devices assigned to the processes in turn (cpu, cuda, cuda:1); empty for the backend's choice."""
    out: Path | None = None
    """Folder for the records, which lets an interrupted run resume; None keeps no records."""


def run_evaluation(
    work: Work, items: Sequence[Any], name: str, choice: ModelChoice, plan: EvaluationPlan, settings: Record
) -> list[Record]:
    """Return the records of `work(grounder, item)` in the order of the items, with a progress bar that counts
    `name`.

    `work` and the items must be picklable. With `plan.out` every record is stored as soon as it is computed,
    and items with a stored record are skipped. settings: must be equal for a run to be resumed; the identity
    of the model is added here. Raises ValueError for a folder of a run with other settings, RuntimeError if a
    process died.
    """
    if plan.jobs < 1:
        raise ValueError(f"--jobs is {plan.jobs}; at least one process is needed.")
    with (
        Journal(plan.out, {**settings, **_identity(choice), "items": len(items)})
        if plan.out
        else nullcontext() as journal
    ):
        done = {int(line["item"]): line["record"] for line in journal.read()} if journal else {}
        missing = [index for index in range(len(items)) if index not in done]
        evaluate = _in_process if plan.jobs == 1 else _in_processes
        made = evaluate(work, items, missing, choice, plan)
        for index, record in shown(made, len(missing), name) if missing else ():
            if journal:
                journal.append(json.dumps({"item": index, "record": record}))
            done[index] = record
    return [done[index] for index in range(len(items))]


def _identity(choice: ModelChoice) -> Record:
    """Settings of the model that must be equal for a run to be resumed."""
    bundle = choice.bundle()
    calibration = choice.calibration.to_manifest() if choice.calibration else bundle.calibration
    chosen = {
        "backend": choice.options.backend,
        "precision": choice.options.precision,
        "resize": bundle.image.resize,
        "min_presence": choice.min_presence,
    }
    return {
        "model": bundle.name,
        "weights": bundle.weights,
        "graphs": bundle.graphs,
        "calibration": calibration,
        **chosen,
    }


def _in_process(
    work: Work, items: Sequence[Any], indices: Sequence[int], choice: ModelChoice, plan: EvaluationPlan
) -> Iterator[tuple[int, Record]]:
    """Evaluate in this process; yields (index, record)."""
    if not indices:
        return
    grounder = _on_device(choice, plan.devices[0] if plan.devices else None).load()
    for index in indices:
        yield index, work(grounder, items[index])


def _on_device(choice: ModelChoice, device: str | None) -> ModelChoice:
    """Select a device. For a numbered GPU, make it the only GPU visible to this process, which every backend
    supports."""
    if device is None:
        return choice
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"There is no device {device!r}; name cpu, cuda, or a numbered GPU as cuda:1.")
    if number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
    return choice.with_options(device=kind)


def _load(choice: ModelChoice, device: str) -> Grounder:
    """Load the model in a worker process."""
    import cv2

    cv2.setNumThreads(1)
    return _on_device(choice, device or None).load()


def _in_processes(
    work: Work, items: Sequence[Any], indices: Sequence[int], choice: ModelChoice, plan: EvaluationPlan
) -> Iterator[tuple[int, Record]]:
    """Evaluate in several processes; yields (index, record) in the order of completion."""
    jobs = min(plan.jobs, len(indices))
    cores = len(os.sched_getaffinity(0))
    one = choice.with_options(threads=choice.options.threads or max(1, cores // max(jobs, 1)))
    arguments = [(one, device) for device in plan.devices or ("",)]
    waiting = (items[index] for index in indices)
    with closing(map_in_processes(_load, work, waiting, jobs, arguments)) as found:
        for place, record in found:
            yield indices[place], record
