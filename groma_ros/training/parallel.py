"""Data-parallel training: single-threaded CPU processes, one process on a GPU, or the processes started by
torchrun or accelerate with one GPU each. Gradients are averaged, seeds differ, rank 0 reports."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from groma_ros.errors import sentence
from groma_ros.progress import shown
from groma_ros.worker_pool import die_with_parent

_SENTENCE = "The training stopped: "
"""Marks the message of an error in a training process, which torch puts after a traceback."""


@dataclass(frozen=True)
class TrainingProcess:
    """This process among `count`."""

    rank: int
    count: int
    device: torch.device

    @property
    def speaks(self) -> bool:
        return self.rank == 0

    def steps(self, first: int, last: int, stage: str) -> Iterable[int]:
        """Iterate over the steps first .. last - 1 of a stage; rank 0 shows the progress."""
        steps = range(first, last)
        return shown(steps, last, f"{stage} step", first) if self.speaks else steps

    def wait(self) -> None:
        """Block until every worker has called this."""
        if self.count > 1:
            distributed.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the workers."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def joined() -> TrainingProcess | None:
    """Join the process group of torchrun or `accelerate launch`; None if neither started this process.

    Both describe the group in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). On
    CPUs the backend is gloo.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo")
        atexit.register(distributed.destroy_process_group)
    return TrainingProcess(rank, count, device)


def launch(task: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Run task(worker, *arguments) in the existing process group (`joined`), else once on a GPU if there is
    one, else in `workers` single-threaded CPU processes.

    Raises RuntimeError with a sentence if a process fails.
    """
    if (worker := joined()) is not None:
        task(worker, *arguments)
        worker.wait()
        return
    if torch.cuda.is_available():
        task(TrainingProcess(0, 1, torch.device("cuda")), *arguments)
        return
    if workers == 1:
        torch.set_num_threads(1)
        task(TrainingProcess(0, 1, torch.device("cpu")), *arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        torch.multiprocessing.spawn(_enter, (task, workers, port, arguments), nprocs=workers)
    except torch.multiprocessing.ProcessRaisedException as error:  # its message is the whole traceback
        raise RuntimeError(str(error).rpartition(_SENTENCE)[2].strip()) from error
    except torch.multiprocessing.ProcessExitedException as error:
        raise RuntimeError(
            f"A training process ended before its work was done ({error}), maybe for want of memory; the "
            "same command with --resume goes on."
        ) from error


def _enter(rank: int, task: Callable[..., None], count: int, port: int, arguments: tuple[Any, ...]) -> None:
    die_with_parent(os.getppid())
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=count)
    try:
        task(TrainingProcess(rank, count, torch.device("cpu")), *arguments)
    except Exception as error:
        raise RuntimeError(_SENTENCE + sentence(error)) from error
    finally:
        distributed.destroy_process_group()
