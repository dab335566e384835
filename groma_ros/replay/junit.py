"""JUnit XML, the form in which build servers read test results: a case a goal, a failure where it changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from groma_ros.replay.compare import Change
from groma_ros.replay.records import FrameRecord

SHOWN = 20
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, goals: Sequence[str], records: Sequence[FrameRecord], changes: Sequence[Change] | None) -> str:
    """The document for one bag. changes: None where the run was compared with nothing; the cases then say that they ran."""
    suite = xml.Element("testsuite", name=_legal(name))
    failed = 0
    frames = [change for change in changes or () if not change.goal]
    refused = [f"frame {record.number}: {record.refused}" for record in records if record.refused]
    failed += _case(suite, name, "frames", [f"frame {change.number}: {change.sentence}" for change in frames])
    for goal in goals:
        own = [f"frame {change.number}: {change.sentence}" for change in changes or () if change.goal == goal]
        failed += _case(suite, name, goal, own)
    if refused:
        xml.SubElement(suite, "system-out").text = _legal("refused images\n" + "\n".join(refused))
    suite.attrib |= {"tests": str(1 + len(goals)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = xml.Element("testsuites")
    root.append(suite)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _case(suite: xml.Element, bag: str, goal: str, sentences: Sequence[str]) -> int:
    """Add a case; 1 if it failed."""
    case = xml.SubElement(suite, "testcase", classname=_legal(f"groma.replay.{bag}"), name=_legal(goal))
    if not sentences:
        return 0
    more = [f"and {len(sentences) - SHOWN} more"] if len(sentences) > SHOWN else []
    failure = xml.SubElement(case, "failure", message=_legal(f"{len(sentences)} differences; {sentences[0]}"))
    failure.text = _legal("\n".join([*sentences[:SHOWN], *more]))
    return 1


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return _ILLEGAL.sub("?", text)
