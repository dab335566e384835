"""Journals of unfinished runs: what counts after an interruption, and whose journal is resumed."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.journal import RECORDS, SETTINGS, STATE, Journal, OrderedJournal


def test_every_complete_line_counts_in_any_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "run", {"seed": (1, 2)}) as journal:
        journal.append('{"item": 3}')
        journal.append('{"item": 0, "text": "a\\u2028b"}')
        assert (tmp_path / "run" / RECORDS).read_bytes().count(b"\n") == 2, "a line waits in memory"
    path = tmp_path / "run" / RECORDS
    path.write_bytes(path.read_bytes() + b'{"item": 1}')  # complete JSON, but the line end is missing
    with Journal(tmp_path / "run", {"seed": [1, 2]}) as journal:
        assert journal.read() == [{"item": 3}, {"item": 0, "text": "a\u2028b"}]
        journal.append('{"item": 2}')
        assert [entry["item"] for entry in journal.read()] == [3, 0, 2]


@pytest.mark.parametrize(
    "damaged", [b"{1\n", b"\0" * 5000, b"\0" * 50 + b"\n", b"1\r1\n", b"[" * 200_000 + b"\n"]
)
def test_nothing_after_a_damaged_line_counts(tmp_path: Path, damaged: bytes) -> None:
    with Journal(tmp_path, {}) as journal:
        for item in range(3):
            journal.append(json.dumps(item))
    (tmp_path / RECORDS).write_bytes(b"0\n" + damaged + b"2\n")
    with Journal(tmp_path, {}) as journal:
        assert journal.read() == [0]
    assert (tmp_path / RECORDS).read_bytes() == b"0\n"


@pytest.mark.parametrize("known", [b'{"seed": 1}', b"not JSON", b"[]"])
def test_another_run_is_refused_and_left_alone(tmp_path: Path, known: bytes) -> None:
    (tmp_path / SETTINGS).write_bytes(known)
    (tmp_path / RECORDS).write_bytes(b"0\n1")
    with pytest.raises(ValueError, match=r"holds another run \(other data, model or options\); name a new"):
        Journal(tmp_path, {"seed": 2})
    assert (tmp_path / SETTINGS).read_bytes() == known and (tmp_path / RECORDS).read_bytes() == b"0\n1"


def test_records_of_another_program_are_left_alone(tmp_path: Path) -> None:
    """They used to be truncated as incomplete lines."""
    (tmp_path / RECORDS).write_bytes(b"notes of somebody\n")
    with pytest.raises(
        ValueError, match=r"records.jsonl is not of a run of this command, .*no settings.json"
    ):
        Journal(tmp_path, {})
    assert (tmp_path / RECORDS).read_bytes() == b"notes of somebody\n"
    assert not (tmp_path / SETTINGS).exists()


def test_an_ordered_run_begins_anew_behind_a_link_too_and_deletes_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with OrderedJournal(tmp_path / "run", {}) as journal:
        journal.append("0")
        journal.save({})
    (tmp_path / "elsewhere" / "notes.txt").write_text("of somebody")
    with OrderedJournal(tmp_path / "run", {}, fresh=True) as journal:
        assert (journal.done, journal.read()) == (0, [])
        journal.append("1")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [
        "notes.txt",
        RECORDS,
        SETTINGS,
    ]


def test_in_an_ordered_run_what_was_saved_counts(tmp_path: Path) -> None:
    folder, files = tmp_path / "run", (RECORDS, "times.jsonl")
    with OrderedJournal(folder, {"seed": 1}, files) as journal:
        assert journal.state is None and journal.done == 0
        journal.append("0", '{"total": 0.5}')
        journal.append("1", '{"total": 1.5}')
        journal.save({"boxes": np.arange(4.0)})
        journal.append("2", '{"total": 2.5}')
        assert journal.done == 3 and journal.read("times.jsonl")[-1] == {"total": 2.5}
    with OrderedJournal(folder, {"seed": 1}, files) as journal:
        assert journal.done == 2 and journal.state is not None
        assert list(journal.state) == ["boxes"] and journal.state["boxes"].tolist() == [0, 1, 2, 3]
        assert journal.read() == [0, 1] and journal.read("times.jsonl") == [{"total": 0.5}, {"total": 1.5}]
        journal.append("20", "{}")
        journal.save({})
    with OrderedJournal(folder, {"seed": 1}, files) as journal:
        assert journal.done == 3 and journal.read() == [0, 1, 20]
        journal.remove()
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["other settings", "fresh", "state", "records", "settings"])
def test_an_ordered_run_begins_anew(tmp_path: Path, damage: str) -> None:
    with OrderedJournal(tmp_path / "run", {"seed": 1}) as journal:
        journal.append('"old"')
        journal.save({})
    names = {"state": STATE, "records": RECORDS, "settings": SETTINGS}
    if damage in names:
        (tmp_path / "run" / names[damage]).write_bytes(b"PK" if damage == "state" else b"")
    seed = 2 if damage == "other settings" else 1
    with OrderedJournal(tmp_path / "run", {"seed": seed}, fresh=damage == "fresh") as journal:
        assert (journal.done, journal.state, journal.read()) == (0, None, [])


@pytest.mark.parametrize(
    "arrays",
    [
        np.arange(3),
        {"journal_sizes": np.int64(3), "journal_done": 1},
        {"journal_sizes": np.array(["x"]), "journal_done": 1},
        {"journal_sizes": np.array([0]), "journal_done": np.arange(3)},
    ],
    ids=["one array", "a size", "a text", "counts"],
)
def test_an_ordered_run_begins_anew_after_a_state_of_another_program(tmp_path: Path, arrays: Any) -> None:
    with OrderedJournal(tmp_path, {"a": 1}) as journal:
        journal.append('{"place": 0}')
        journal.save({})
    with (tmp_path / STATE).open("wb") as stream:
        np.savez(stream, **arrays) if isinstance(arrays, dict) else np.save(stream, arrays)
    with OrderedJournal(tmp_path, {"a": 1}) as journal:
        assert (journal.done, journal.state, journal.read()) == (0, None, [])


def test_settings_nested_too_deep_are_of_another_run(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match="holds another run"):
        Journal(tmp_path, {"a": 1})


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The kernel refuses the write: the sentence names the file, and a rerun has all complete lines."""
    journal = Journal(tmp_path, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(
                OSError, match=r"records.jsonl could not be written: the file passes the size limit"
            ),
            journal,
        ):
            for number in range(100):
                journal.append(json.dumps({"item": number, "text": "x" * 100}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Journal(tmp_path, {}) as journal:
        done = [entry["item"] for entry in journal.read()]
        assert done == list(range(len(done))) and 5 <= len(done) < 100
