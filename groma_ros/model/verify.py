"""`groma verify`: compare the network with recorded tensors of the original, as a whole and stage by
stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from groma_ros.model.reference import Reference, ReferenceRun, Values, batch_pixels
from groma_ros.model.stages import (
    DETECTOR_STAGES,
    INFINITE,
    INTERNAL,
    PROMPT_STAGES,
    Stage,
    prefix_reuse,
    vision_stages,
)

WHOLE_LIMIT = 2e-4  # of worst |diff| / max |reference|, all stages on their own inputs
STAGE_LIMIT = 2e-5  # the same, every stage fed the recorded input
_NOT_COMPARABLE = 1e9  # the error of other shapes, other integers or a value that is not a number
_MASKED = ("inputs_embeds", "final_hidden", "logits")  # meaningless where the batch is padded


@dataclass(frozen=True)
class Check:
    """Comparison of one recorded tensor with ours."""

    stage: str
    tensor: str
    alone: bool  # the stage was fed recorded inputs
    integer: bool
    error: float
    """Worst |difference| / max |reference|; for integers 0 if all are equal."""

    @property
    def limit(self) -> float:
        return 0.0 if self.integer else STAGE_LIMIT if self.alone else WHOLE_LIMIT

    @property
    def ok(self) -> bool:
        return self.error <= self.limit


@dataclass(frozen=True)
class Report:
    """All comparisons of a reference, and the recorded tensors without one."""

    checks: tuple[Check, ...]
    not_compared: tuple[str, ...]

    @property
    def worst(self) -> float:
        return max((check.error for check in self.checks), default=math.inf)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: errors by stage and tensor; `null` if a tensor was compared in one way only."""
        stages: dict[str, dict[str, Any]] = {}
        for check in self.checks:
            stage = stages.setdefault(check.stage, {"ok": True, "tensors": {}})
            row = stage["tensors"].setdefault(check.tensor, {"end_to_end": None, "stage_by_stage": None})
            way = "stage_by_stage" if check.alone else "end_to_end"
            row[way] = max(check.error, row[way] or 0.0)
            stage["ok"] = stage["ok"] and check.ok
        return {
            "stages": stages,
            "worst": self.worst,
            "limit": WHOLE_LIMIT,
            "stage_limit": STAGE_LIMIT,
            "ok": self.ok,
            "not_compared": list(self.not_compared),
        }


@torch.no_grad()
def verify(reference: Reference) -> Report:
    """Compare every recorded tensor. Raises ValueError if the set holds a tensor this network cannot
    compute."""
    made = reference.pixels()
    picture = ReferenceRun(
        "image", {}, {name: value for name, value in reference.images.items() if name in made}
    )
    checks = _compare("picture", picture, made, alone=False)
    own, recorded = {**reference.images, **made}["pixel_values"], {**made, **reference.images}["pixel_values"]
    visions = {run.images: run for run in reference.runs if "vis_hidden.0" in run.recorded}
    for run in reference.runs:
        prompt = "input_ids" in run.given
        stages = [*vision_stages(reference.model), *(PROMPT_STAGES if prompt else DETECTOR_STAGES)]
        whole: Values = {"pixels": batch_pixels(own, run.images)}
        checks += _walk(reference, run, stages, whole, alone=False)
        # A detector run records only losses; the recorded proposals are those of the run on the same
        # picture.
        shared = visions[run.images].recorded if not prompt and run.images in visions else {}
        alone = {"pixels": batch_pixels(recorded, run.images), **shared, **run.recorded}
        checks += _walk(reference, run, stages, alone, alone=True)
        if reference.prefix_positions is not None and run.name == "rec" and "logits" in run.recorded:
            checks += _prefix(reference, run, whole)
    compared = {check.tensor for check in checks}
    runs = [picture, *reference.runs]
    names = [f"{run.name}.{key}" for run in runs for key in run.recorded]
    return Report(tuple(checks), tuple(name for name in names if name not in compared))


def _walk(
    reference: Reference, run: ReferenceRun, stages: Sequence[tuple[str, Stage]], values: Values, alone: bool
) -> list[Check]:
    """Run the stages in order. alone: feed each stage recorded values only, besides those that no set
    records."""
    checks = []
    for name, stage in stages:
        try:
            out = stage(reference.model, run, values)
        except KeyError as error:
            if not alone and error.args[0] not in _optional(run):
                raise ValueError(f"The run {run.name} lacks {error.args[0]}, which {name} needs.") from None
            continue
        checks += _compare(name, run, out, alone)
        for key, value in out.items():
            if not alone or key.split(".")[0] in INTERNAL:
                values.setdefault(key, value)
    return checks


def _optional(run: ReferenceRun) -> set[str]:
    return {"selected_boxes.0"} if "input_ids" not in run.given else set()


def _prefix(reference: Reference, run: ReferenceRun, whole: Values) -> list[Check]:
    start = reference.prefix_positions or 0
    tails = ReferenceRun("prefix_reuse", {}, {"tail_logits": run.recorded["logits"][:, start:]})
    checks = []
    for alone, values in ((False, whole), (True, run.recorded)):
        if "inputs_embeds" in values:
            tail = prefix_reuse(reference.model, values["inputs_embeds"], start)
            checks += _compare("prefix reuse", tails, {"tail_logits": tail}, alone)
    return checks


def _compare(stage: str, run: ReferenceRun, ours: Values, alone: bool) -> list[Check]:
    checks = []
    for key, value in ours.items():
        if key not in run.recorded:
            continue
        reference = run.recorded[key]
        mask = run.recorded.get("attention_mask") if key in _MASKED else None
        integer = not reference.is_floating_point()
        checks.append(Check(stage, f"{run.name}.{key}", alone, integer, difference(value, reference, mask)))
    return checks


def difference(ours: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """Worst |ours - reference| / max |reference|, where mask (B, N) is 1 if given; for integers 0 if equal.

    Returns 1e9 if they cannot be compared: different shapes, integers or infinities, or NaN.
    """
    if ours.shape != reference.shape:
        return _NOT_COMPARABLE
    if mask is not None:
        if mask.shape != reference.shape[:2]:
            return _NOT_COMPARABLE
        ours, reference = ours[mask.bool()], reference[mask.bool()]
    if not reference.is_floating_point():
        return 0.0 if torch.equal(ours.long(), reference.long()) else _NOT_COMPARABLE
    finite = reference.abs() < INFINITE / 10
    if not torch.equal(ours.abs() < INFINITE / 10, finite):
        return _NOT_COMPARABLE
    a, b = ours[finite].double(), reference[finite].double()
    if not len(b):
        return 0.0
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
    return min(error, _NOT_COMPARABLE) if math.isfinite(error) else _NOT_COMPARABLE


def print_report(report: Report, console: Console) -> None:
    """Print a table with one line for each stage, and the verdict."""
    table = Table("stage", "end to end", "stage by stage", "integers", "worst tensor", "")
    for stage in dict.fromkeys(_group(check.stage) for check in report.checks):
        checks = [check for check in report.checks if _group(check.stage) == stage]
        floats = [check for check in checks if not check.integer]
        integers = [check for check in checks if check.integer]
        worst = max(checks, key=lambda check: check.error / (check.limit or 1.0))
        table.add_row(
            stage,
            _worst(check.error for check in floats if not check.alone),
            _worst(check.error for check in floats if check.alone),
            f"{sum(check.ok for check in integers)} of {len(integers)}" if integers else "",
            worst.tensor,
            "ok" if all(check.ok for check in checks) else "FAILS",
        )
    console.print(table)
    if report.not_compared:
        console.print(f"Not compared: {', '.join(report.not_compared)}.")
    failed = sum(not check.ok for check in report.checks)
    verdict = "all within the limits" if report.ok else f"{failed} of them outside the limits"
    limits = f"end to end {WHOLE_LIMIT:g}, stage by stage {STAGE_LIMIT:g}, integers equal"
    console.print(f"{len(report.checks)} comparisons, {verdict} ({limits}).")


def _group(stage: str) -> str:
    """One report line for all blocks of the backbone."""
    return "backbone blocks" if stage.startswith("backbone block") else stage


def _worst(errors: Iterable[float]) -> str:
    values = list(errors)
    return f"{max(values):.1e}" if values else ""
