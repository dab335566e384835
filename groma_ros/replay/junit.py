"""JUnit XML for build servers: a suite per bag, a case per goal, a failure for each difference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as xml

SHOWN = 20
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case."""

    name: str
    failures: tuple[str, ...] = ()
    """One sentence per difference; empty if the case passed."""


@dataclass(frozen=True)
class Suite:
    """One bag."""

    name: str
    cases: tuple[Case, ...] = ()
    error: str = ""
    """Why it could not be replayed; empty if it could."""
    notes: tuple[str, ...] = ()
    """Additional lines for the reader."""


def junit(suites: Sequence[Suite]) -> str:
    """Return the XML document."""
    root = xml.Element("testsuites")
    for suite in suites:
        root.append(_suite(suite))
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _suite(suite: Suite) -> xml.Element:
    cases = (Case("replay"), *suite.cases)  # an error of the bag is reported at the first case
    failed = sum(bool(case.failures) for case in cases)
    counts = {"tests": len(cases), "failures": failed, "errors": int(bool(suite.error)), "skipped": 0}
    element = xml.Element(
        "testsuite", {"name": _legal(suite.name), **{key: str(number) for key, number in counts.items()}}
    )
    for place, case in enumerate(cases):
        found = xml.SubElement(
            element, "testcase", classname=_legal(f"groma.replay.{suite.name}"), name=_legal(case.name)
        )
        if suite.error and place == 0:
            xml.SubElement(found, "error", message=_legal(suite.error))
        if case.failures:
            more = [f"and {len(case.failures) - SHOWN} more"] if len(case.failures) > SHOWN else []
            failure = xml.SubElement(
                found, "failure", message=_legal(f"{len(case.failures)} differences; {case.failures[0]}")
            )
            failure.text = _legal("\n".join([*case.failures[:SHOWN], *more]))
    if suite.notes:
        xml.SubElement(element, "system-out").text = _legal("\n".join(suite.notes))
    return element


def _legal(text: str) -> str:
    """Remove characters that are not allowed in XML 1.0."""
    return _ILLEGAL.sub("?", text)
