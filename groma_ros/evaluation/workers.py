"""Running a model over many items: in this process or in several, on the CPU or a list of GPUs, and going on
where a run ended."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groma_ros.atomic_write import replacing
from groma_ros.grounding.calibration import Calibration
from groma_ros.grounding.grounder import Grounder
from groma_ros.preprocessing import RESIZES, Resize
from groma_ros.progress import shown
from groma_ros.runtime.bundle import Bundle, read_network
from groma_ros.runtime.options import RuntimeChoice, RuntimeOptions
from groma_ros.worker_pool import map_in_processes

if TYPE_CHECKING:
    from typing_extensions import Unpack

RECORDS, SETTINGS = "records.jsonl", "settings.json"
_OF_THE_ORIGINAL: dict[str, Resize] = {"published": "bilinear", "demo": "bicubic"}
Record = dict[str, Any]
Work = Callable[[Grounder, Any], Record]


@dataclass(frozen=True)
class ModelChoice:
    """Which model is measured and how it runs: what a process needs to load it.

    Pickled to the processes of an evaluation.
    """

    directory: Path
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    min_presence: float | None = None
    resize: str = "own"
    """One of `preprocessing.RESIZES`; "own" takes the bundle's. For weights of the published geometry
    "published" takes what the original's evaluations did (bilinear) and "demo" what its demo and chat did
    (bicubic); for other weights both take the bundle's own."""
    calibration: Calibration | None = None
    """Instead of the manifest's."""

    def bundle(self) -> Bundle:
        """The bundle, with the resize that was chosen. Raises BundleError, and ValueError for a resize that
        is unknown."""
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
        """The same model under other options."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))

    def load(self) -> Grounder:
        """Load the model."""
        return Grounder.load(
            self.bundle(), self.options, min_presence=self.min_presence, calibration=self.calibration
        )


@dataclass(frozen=True)
class EvaluationPlan:
    """How a run is spread. jobs: processes; devices: what they run on in turn (cpu, cuda, cuda:1), none for
    the backend's choice; out: the folder that keeps the records, so that a run that was stopped goes on; None
    keeps nothing."""

    jobs: int = 1
    devices: tuple[str, ...] = ()
    out: Path | None = None


def run_evaluation(
    work: Work, items: Sequence[Any], name: str, choice: ModelChoice, plan: EvaluationPlan, settings: Record
) -> list[Record]:
    """The records that `work(grounder, item)` makes of the items, in their order, with progress of things
    called `name`.

    work and the items must survive a pickle. With `plan.out` every record is kept as soon as it exists, and
    items that have one are not done again; settings: what must be the same for that (the model is added
    here). Raises ValueError for a folder of other settings, RuntimeError where a process died.
    """
    if plan.jobs < 1:
        raise ValueError(f"--jobs is {plan.jobs}; at least one process is needed.")
    store = (
        RecordStore(plan.out, {**settings, **_identity(choice), "items": len(items)}) if plan.out else None
    )
    done = store.read() if store else {}
    missing = [index for index in range(len(items)) if index not in done]
    made = (
        _alone(work, items, missing, choice, plan)
        if plan.jobs == 1
        else _spread(work, items, missing, choice, plan)
    )
    for index, record in shown(made, len(missing), name) if missing else ():
        if store:
            store.add(index, record)
        done[index] = record
    return [done[index] for index in range(len(items))]


def _identity(choice: ModelChoice) -> Record:
    """What makes two runs of a model the same run."""
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


class RecordStore:
    """A folder with a line of JSON for every finished item. Raises ValueError for one that was begun with
    other settings."""

    def __init__(self, folder: Path, settings: Record) -> None:
        self._path = folder / RECORDS
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / SETTINGS
        wanted = json.loads(json.dumps(settings))
        if known.is_file() and _read_settings(known) != wanted:
            raise ValueError(
                f"{folder} holds another run (other data, model or options); name a new --out folder or "
                "remove this one."
            )
        with replacing(known) as stream:
            stream.write(json.dumps(wanted, indent=1).encode() + b"\n")

    def read(self) -> dict[int, Record]:
        """The records by the index of their item. A last line that was cut off is dropped, from the file
        too."""
        found: dict[int, Record] = {}
        whole = 0
        data = self._path.read_bytes() if self._path.is_file() else b""
        for line in data.splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            found[int(entry["item"])] = entry["record"]
            whole += len(line)
        if whole < len(data):
            with self._path.open("r+b") as stream:
                stream.truncate(whole)
        return found

    def add(self, index: int, record: Record) -> None:
        """Keep a record."""
        with self._path.open("ab") as stream:
            stream.write(json.dumps({"item": index, "record": record}).encode() + b"\n")


def _read_settings(path: Path) -> Any:
    """The settings of a folder; None where somebody else's file stands there."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _alone(
    work: Work, items: Sequence[Any], indices: Sequence[int], choice: ModelChoice, plan: EvaluationPlan
) -> Iterator[tuple[int, Record]]:
    if not indices:
        return
    grounder = _on(choice, plan.devices[0] if plan.devices else None).load()
    for index in indices:
        yield index, work(grounder, items[index])


def _on(choice: ModelChoice, device: str | None) -> ModelChoice:
    """The choice on a device. A numbered GPU becomes the only one this process sees, which every backend
    understands."""
    if device is None:
        return choice
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"There is no device {device!r}; name cpu, cuda, or a numbered GPU as cuda:1.")
    if number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
    return choice.with_options(device=kind)


def _load(choice: ModelChoice, device: str) -> Grounder:
    """The model in a process of `_spread`."""
    import cv2

    cv2.setNumThreads(1)
    return _on(choice, device or None).load()


def _spread(
    work: Work, items: Sequence[Any], indices: Sequence[int], choice: ModelChoice, plan: EvaluationPlan
) -> Iterator[tuple[int, Record]]:
    """As `_alone`, in several processes; records come in the order in which they are finished."""
    jobs = min(plan.jobs, len(indices))
    cores = len(os.sched_getaffinity(0))
    one = choice.with_options(threads=choice.options.threads or max(1, cores // max(jobs, 1)))
    arguments = [(one, device) for device in plan.devices or ("",)]
    waiting = (items[index] for index in indices)
    with closing(map_in_processes(_load, work, waiting, jobs, arguments)) as found:
        for place, record in found:
            yield indices[place], record
