"""DDS domains for programs and tests that must not hear each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions

from groma_ros.client.demo import processes
from groma_ros.client.demo.processes import DOMAINS, domain_is_used, unused_domain
from tests import domains
from tests.domains import own_domain, reserved_domain


def test_a_domain_is_used_while_somebody_takes_part() -> None:
    with reserved_domain() as domain:
        assert not domain_is_used(domain)
        context = Context()
        rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("somebody", context=context)
        assert domain_is_used(domain)
        node.destroy_node()
        context.shutdown()


def test_a_used_domain_is_not_chosen() -> None:
    first = unused_domain()
    assert first in DOMAINS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 7410 + 250 * first))
        assert unused_domain() != first


def test_programs_that_start_together_get_different_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "groma_ros.client.demo.processes"
    script = f"from {module} import unused_domain; print(unused_domain(), flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        monkeypatch.setattr(os, "getpid", lambda: DOMAINS.index(theirs))  # begins there
        assert not domain_is_used(theirs) and unused_domain() != theirs
        process.kill()
    assert unused_domain() == theirs


def test_a_reserved_domain_is_free_again_when_its_process_is_killed() -> None:
    """And not before, though nobody takes part in it yet."""
    script = "from tests import domains; print(domains.own_domain(), flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        path = Path(tempfile.gettempdir()) / f"groma_ros_domains_{os.getuid()}" / str(theirs)
        with path.open() as file:
            assert not domains._locked(file)
        with reserved_domain() as domain:
            assert domain != theirs
        process.kill()
    with path.open() as file:
        assert domains._locked(file)


def test_without_an_unused_domain_none_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_claim", lambda domain: True)
    monkeypatch.setattr(processes, "domain_is_used", lambda domain: domain != 42)
    assert unused_domain() == 42
    monkeypatch.setattr(processes, "domain_is_used", lambda domain: True)
    with pytest.raises(RuntimeError, match=r"^All DDS domains from 1 to 100 are used on this machine; "):
        unused_domain()


def test_reserved_domains_are_apart() -> None:
    """Those of one process as those of several: a lock belongs to the opened file."""
    with reserved_domain() as one, reserved_domain() as two:
        assert len({one, two, own_domain()}) == 3 and own_domain() == own_domain()
        assert not {one, two, own_domain()} & {*DOMAINS}
