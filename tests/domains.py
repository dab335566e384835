"""DDS domains that no other test process uses, so that tests in parallel do not hear each other."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from groma_ros.client.demo.processes import domain_is_used

DOMAINS = (*range(215, 233), *range(102, 215))
"""None that `unused_domain` gives to a program that a test starts. The ports of the first 18 are above those
that Linux hands out to other sockets."""


@contextmanager
def reserved_domain() -> Iterator[int]:
    """A domain that is this process's own until the context ends; a lock on a file shows it to the others."""
    folder = Path(tempfile.gettempdir()) / f"groma_ros_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for domain in DOMAINS:
        with (folder / str(domain)).open("w") as file:
            if _locked(file) and not domain_is_used(domain):
                yield domain
                return
    raise RuntimeError(f"Every DDS domain is in use; the locks are in {folder}.")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_held = ExitStack()


@cache
def own_domain() -> int:
    """A domain that is this process's own as long as it lives."""
    return _held.enter_context(reserved_domain())
