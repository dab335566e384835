"""Skip tests that cannot render on this machine and list them at the end; with CI=true they fail the run."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from groma_ros.simulation.drawing import RenderingUnavailable

Reports = Generator[None, pytest.TestReport, pytest.TestReport]

NOT_RENDERED = ("rendering", "unavailable")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Reports:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(RenderingUnavailable):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), (item.location[1] or 0) + 1, str(call.excinfo.value))
        report.user_properties.append(NOT_RENDERED)
    return report


def not_rendered(config: pytest.Config) -> list[str]:
    """The tests that could not render, by name."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    return [report.nodeid for report in skipped if NOT_RENDERED in map(tuple, report.user_properties)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("CI") == "true" and not_rendered(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    names = not_rendered(config)
    if names:
        terminalreporter.section("could not render here: install libegl1 libgl1-mesa-dri libgles2")
        for name in names:
            terminalreporter.line(name)
