"""The JUnit document of a batch, parsed as a build server does."""

from xml.etree import ElementTree as xml

from groma_ros.replay.junit import Case, Suite, junit


def test_a_batch_is_read_by_a_build_server() -> None:
    many = tuple(f"frame {number}: moved" for number in range(25))
    suites = [
        Suite(
            "bag & more",
            (Case("frames"), Case("mugs", many), Case("<b>\x07")),
            notes=("frame 3 was refused: truncated",),
        ),
        Suite("torn", error="The bag torn.mcap is truncated."),
    ]
    first, second = xml.fromstring(junit(suites)).findall("testsuite")
    counts = [
        {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
        for suite in (first, second)
    ]
    assert counts == [
        {"tests": 4, "failures": 1, "errors": 0, "skipped": 0},
        {"tests": 1, "failures": 0, "errors": 1, "skipped": 0},
    ]
    assert first.attrib["name"] == "bag & more"
    assert [case.attrib["name"] for case in first.findall("testcase")] == ["replay", "frames", "mugs", "<b>?"]
    (failure,) = first.findall("testcase/failure")
    assert failure.attrib["message"] == "25 differences; frame 0: moved"
    assert failure.text is not None and failure.text.splitlines()[-2:] == ["frame 19: moved", "and 5 more"]
    assert first.findtext("system-out") == "frame 3 was refused: truncated"
    error = second.find("testcase/error")
    assert error is not None and error.attrib["message"] == "The bag torn.mcap is truncated."
