"""Inconsistent, truncated and decompression-bomb bags end in one error, quickly and in little memory;
unusual but valid bags are read whole."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.opcode import Opcode
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import StoragePlugin

from groma_ros.io import bag_errors
from groma_ros.io.bag_errors import BagError, BagLoss
from groma_ros.io.bag_mcap import MAGIC
from groma_ros.io.bags import RAW, open_bag
from tests.io.test_bags import STORE, image, pictures, read, write

DEFINITION = STORE.generate_msgdef(RAW, ros_version=2)[0].encode()


def sqlite_bag(folder: Path, name: str = "bag", count: int = 3) -> Path:
    """A rosbag2 folder with one .db3 file and `count` images on /eye."""
    shown = pictures(1)[0]
    messages = [("/eye", RAW, 10 * (place + 1), image(place + 1, shown)) for place in range(count)]
    return write(folder / name, messages, StoragePlugin.SQLITE3)


def database(folder: Path) -> Path:
    return next(folder.glob("*.db3"))


def mcap_file(path: Path, others: Sequence[tuple[str, str, str]] = (), **options: object) -> Path:
    """An MCAP file with three images on /eye; others: (schema encoding, message encoding, topic) of channels
    with one message of text."""
    profile = str(options.pop("profile", "ros2"))
    options.setdefault("compression", CompressionType.ZSTD)
    with path.open("wb") as stream:
        writer = Writer(stream, **options)  # type: ignore[arg-type]
        writer.start(profile=profile)
        for schema_encoding, encoding, topic in others:
            schema = writer.register_schema("my.Thing", schema_encoding, b"junk")
            channel = writer.register_channel(topic, encoding, schema)
            writer.add_message(channel, 1, b"{}", 1)
        schema = writer.register_schema(RAW, "ros2msg", DEFINITION)
        channel = writer.register_channel("/eye", "cdr", schema)
        for place in range(3):
            data = bytes(STORE.serialize_cdr(image(place + 1, pictures(1)[0]), RAW))
            writer.add_message(channel, 10 * (place + 1), data, 10 * (place + 1))
        writer.finish()
    return path


def times(path: Path, allow_loss: bool = False) -> list[int]:
    return [item.time for item in read(path, topic="/eye", allow_loss=allow_loss)]


@pytest.mark.parametrize("name", ["feature%2Fx", "a#b", "what?", "two words", "кухня 台所", "a&b=c;d"])
def test_paths_of_any_name(tmp_path: Path, name: str) -> None:
    folder = sqlite_bag(tmp_path, "bag")
    (tmp_path / name).mkdir()
    moved = folder.rename(tmp_path / name / name)
    assert times(moved) == times(database(moved)) == [10, 20, 30]


def test_an_unfinished_recording_is_read_with_its_log(tmp_path: Path) -> None:
    """Half of the messages stand in the write-ahead log; neither file is changed and nothing is left."""
    folder = sqlite_bag(tmp_path, count=2)
    path = database(folder)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("INSERT INTO messages SELECT id + 2, topic_id, timestamp + 20, data FROM messages")
    connection.commit()
    copy = tmp_path / "cut"
    copy.mkdir()
    for file in folder.iterdir():
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    connection.close()
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    assert {name.rpartition(".")[2] for name in before} == {"db3", "db3-wal", "yaml"}
    assert times(database(copy)) == [10, 20, 30, 40]
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
    with pytest.raises(BagLoss, match=r"announces 2 messages on /eye and holds 4; `ros2 bag reindex`"):
        times(copy)
    assert times(copy, allow_loss=True) == [10, 20, 30, 40]


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_split_bags_with_and_without_metadata(tmp_path: Path, plugin: StoragePlugin) -> None:
    """Eleven files, of which _10 comes after _9; a newer version of the metadata; none."""
    folder = tmp_path / "split"
    folder.mkdir()
    ending = ".mcap" if plugin is StoragePlugin.MCAP else ".db3"
    for place in range(11):
        part = write(tmp_path / f"p{place}", [("/eye", RAW, place + 1, image(1, pictures(1)[0]))], plugin)
        shutil.copy(next(part.glob(f"*{ending}")), folder / f"rec_{place}{ending}")
    assert times(folder) == list(range(1, 12))
    text = (tmp_path / "p0" / "metadata.yaml").read_text().replace("version: 9", "version: 12")
    names = "".join(f"\n  - rec_{place}{ending}" for place in range(11))
    text = text.replace(f"\n  - p0{ending}", names).replace("message_count: 1", "message_count: 11")
    (folder / "metadata.yaml").write_text(text)
    with open_bag(folder) as bag:
        assert any("has the version 12, newer than 9" in note for note in bag.notes)
    assert times(folder) == list(range(1, 12))
    (folder / f"rec_4{ending}").unlink()
    with pytest.raises(BagLoss, match=rf"names rec_4{ending}, and that is not there; --allow-loss goes on"):
        times(folder)
    assert times(folder, allow_loss=True) == [1, 2, 3, 4, *range(6, 12)]


def test_announced_and_actual_message_counts(tmp_path: Path) -> None:
    """Metadata of sixty messages over a file of three; QoS that differs does not matter."""
    folder = sqlite_bag(tmp_path)
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 3", "message_count: 60"))
    with pytest.raises(BagLoss, match=r"bag announces 60 messages on /eye and holds 3; .*--allow-loss"):
        times(folder)
    with open_bag(folder, allow_loss=True) as bag:
        bag.check_topic("/eye", (RAW,), "a camera")
        assert bag.losses == [f"The bag {folder} announces 60 messages on /eye and holds 3."]
    connection = sqlite3.connect(database(folder))
    connection.execute("UPDATE topics SET offered_qos_profiles = 'odd'")
    connection.commit()
    connection.close()
    assert times(database(folder)) == [10, 20, 30]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"profile": ""},
        {"use_chunking": False},
        {"compression": CompressionType.NONE},
        {"compression": CompressionType.LZ4},
        {"use_statistics": False},
        {"index_types": 0},
        {"use_summary_offsets": False, "use_statistics": False, "repeat_channels": False},
        {"repeat_schemas": False, "repeat_channels": False, "use_statistics": False, "index_types": 0},
        {"chunk_size": 1},
    ],
)
def test_mcap_of_every_make(tmp_path: Path, options: dict[str, object]) -> None:
    """Without profile, chunks, index, statistics or summary; channels that are not ROS beside the camera."""
    from mcap.writer import IndexType

    if "index_types" in options:
        options = {**options, "index_types": IndexType(0)}
    others = [("unknown", "cdr", "/arm"), ("protobuf", "protobuf", "/lidar"), ("jsonschema", "json", "/log")]
    path = mcap_file(tmp_path / "rec.mcap", others, **options)
    assert times(path) == [10, 20, 30]
    with pytest.raises(BagError, match=r"/lidar of .* are serialized as protobuf; ROS 2 writes cdr"):
        read(path, topic="/lidar")


def test_an_mcap_file_that_breaks_off(tmp_path: Path) -> None:
    """The sentence says where; what stands before it is read where a loss is allowed."""
    whole = mcap_file(tmp_path / "whole.mcap", use_chunking=False)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: data.index(struct.pack("<Q", 30)) + 40])
    with pytest.raises(BagError, match=r"damaged at byte \d+ of \d+: .*`mcap recover` saves"):
        times(cut)
    with open_bag(cut, allow_loss=True) as bag:
        assert len(bag.losses) == 1 and "damaged at byte" in bag.losses[0]
    assert times(cut, allow_loss=True) == [10, 20]


def test_more_in_the_statistics_than_in_the_file(tmp_path: Path) -> None:
    path = mcap_file(tmp_path / "rec.mcap", use_chunking=True)
    data = path.read_bytes()
    pair = struct.pack("<HQ", 1, 3)
    place = data.rindex(pair)
    path.write_bytes(data[:place] + struct.pack("<HQ", 1, 9) + data[place + len(pair) :])
    with pytest.raises(BagLoss, match="announces 9 messages on /eye and holds 3"):
        times(path)
    assert times(path, allow_loss=True) == [10, 20, 30]


def chunk_of(size: int, expanded: bytes, count: int = 1) -> bytes:
    """An MCAP file without a summary, of chunks that say they expand to `size` bytes."""
    data = zstandard.ZstdCompressor().compress(expanded)
    body = struct.pack("<QQQII", 1, 2, size, 0, 4) + b"zstd" + struct.pack("<Q", len(data)) + data
    header = struct.pack("<BQ", Opcode.HEADER, 12) + struct.pack("<I", 4) + b"ros2" + struct.pack("<I", 0)
    chunk = struct.pack("<BQ", Opcode.CHUNK, len(body)) + body
    footer = struct.pack("<BQ", Opcode.FOOTER, 20) + bytes(20)
    return MAGIC + header + count * chunk + footer + MAGIC


def test_chunks_that_expand_beyond_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.mcap"
    path.write_bytes(chunk_of(2**33, bytes(1000)))
    with pytest.raises(BagError, match=r"is refused: its chunks expand to more than 1 GiB"):
        times(path)
    path.write_bytes(chunk_of(2**29, bytes(1000)))
    with pytest.raises(BagError, match=r"chunk at byte 29 that expands to 512 MiB; the most .* is 256 MiB"):
        times(path)
    for size, word in ((10, "more"), (5000, "less")):
        path.write_bytes(chunk_of(size, bytes(1000)))
        with pytest.raises(BagError, match=rf"at byte 29 of \d+: .*expands to {word} than its {size} bytes"):
            times(path)
    monkeypatch.setattr(bag_errors, "MIN_EXPANDED_BYTES", 2000)
    monkeypatch.setattr(bag_errors, "MAX_RATIO", 1)
    path.write_bytes(chunk_of(1500, struct.pack("<BQ", 0x80, 1491) + bytes(1491), count=2))
    with pytest.raises(BagError, match=r"its chunks expand to more than 1.95 KiB"):
        times(path)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_messages_that_expand_beyond_the_limits(
    tmp_path: Path, plugin: StoragePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed one by one; the limits are those of one message and of all together."""
    shots = [("/eye", RAW, time, image(time, np.zeros((20, 20, 3), np.uint8))) for time in (1, 2, 3)]
    folder = write(tmp_path / "bag", shots, plugin, "MESSAGE")
    assert times(folder) == [1, 2, 3]
    monkeypatch.setattr(bag_errors, "MIN_EXPANDED_BYTES", 3000)
    monkeypatch.setattr(bag_errors, "MAX_RATIO", 0)
    with pytest.raises(BagError, match=r"is refused: its messages expand to more than 2.93 KiB"):
        times(folder)
    monkeypatch.setattr(bag_errors, "MAX_CHUNK_BYTES", 1000)
    with pytest.raises(BagError, match=r"The message in .* of the bag .* expands to more than 1000 bytes"):
        times(folder)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_damaged_compressed_message_is_named(tmp_path: Path, plugin: StoragePlugin) -> None:
    broken = bag_errors.ZSTD_MAGIC + b"no zstd data"
    folder = write(tmp_path / "bag", [("/eye", RAW, 1, broken)], plugin)
    with pytest.raises(
        BagError, match=r"is damaged in (row 1 of its|the record at byte \d+).*: its zstd data is damaged"
    ):
        read(folder, topic="/eye")


def test_files_that_are_compressed_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (database(sqlite_bag(tmp_path)), mcap_file(tmp_path / "rec.mcap")):
        packed = path.with_name(path.name + ".zstd")
        packed.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
        path.unlink()
        assert times(packed) == [10, 20, 30]
        with monkeypatch.context() as context:
            context.setattr(bag_errors, "MIN_EXPANDED_BYTES", 1000)
            context.setattr(bag_errors, "MAX_RATIO", 1)
            with pytest.raises(BagError, match="is refused: it expands to more than"):
                times(packed)


def change(statement: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(statement)
        connection.close()

    return apply


ENDLESS = "WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r)"


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "DROP TABLE messages; CREATE VIEW messages AS "
            f"{ENDLESS} SELECT id, 1 AS topic_id, id AS timestamp, x'00' AS data FROM r",
            "its messages is a view",
        ),
        (
            f"DROP TABLE schema; CREATE VIEW schema AS {ENDLESS} SELECT id AS schema_version FROM r",
            "its schema is a view",
        ),
        (
            "DROP TABLE messages; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, "
            "timestamp INTEGER, data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))",
            "its messages is a table with formulas",
        ),
        (
            "CREATE TABLE m AS SELECT * FROM messages; DROP TABLE messages; "
            "ALTER TABLE m RENAME TO messages; UPDATE messages SET timestamp = NULL WHERE id = 2",
            "row 2 of its table messages has the time None",
        ),
        (
            "UPDATE messages SET timestamp = 1e30 WHERE id = 2",
            r"row 2 of its table messages .* time 1e\+30",
        ),
        ("UPDATE messages SET timestamp = 3000000000000000000", r"recorded 3e\+09 s after 1970"),
        ("UPDATE messages SET timestamp = -1", "recorded -1e-09 s after 1970"),
        ("UPDATE messages SET data = 'text'", "row 1 of its table messages holds no bytes"),
        ("DROP TABLE topics", "it has no table topics"),
    ],
)
def test_databases_that_lie(tmp_path: Path, statement: str, sentence: str) -> None:
    path = database(sqlite_bag(tmp_path))
    change(statement)(path)
    with pytest.raises(BagError, match=sentence):
        times(path)


def test_header_nanoseconds_beyond_a_second(tmp_path: Path) -> None:
    """The image is refused in its place; the others are read."""
    odd = image(1, pictures(1)[0])
    odd.header.stamp.nanosec = 1_000_000_000
    good = image(2, pictures(1)[0])
    folder = write(tmp_path / "bag", [("/eye", RAW, 1, odd), ("/eye", RAW, 2, good)], StoragePlugin.MCAP)
    assert [item.cause for item in read(folder)] == ["stamp", ""]


def test_a_metadata_file_that_is_a_bomb(tmp_path: Path) -> None:
    folder = sqlite_bag(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{place}: &a{place} [{', '.join([f'*a{place - 1}'] * 10)}]" for place in range(1, 12)]
    (folder / "metadata.yaml").write_text("\n".join(lines))
    with pytest.raises(BagError, match="metadata.yaml cannot be read: .*aliases expand to more than"):
        times(folder)


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.db3.zstd", "a.mcap.zstd"])
def test_what_stands_in_the_place_of_a_bag_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content, sentence in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, maybe the error page of a download"),
    ):
        path.write_bytes(content)
        with pytest.raises(BagError, match=f"{name} {sentence}"):
            read(path)


def test_compressed_data_that_end_before_their_content(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "bag", [("/eye", RAW, 1, image(1, pictures(1)[0]))], StoragePlugin.SQLITE3, "FILE"
    )
    path = next(folder.glob("*.zstd"))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BagError, match="is truncated or damaged: its zstd data cannot be expanded"):
        read(folder)


def test_topic_names_reach_no_terminal(tmp_path: Path) -> None:
    messages = [(f"/{name}\x1b[31m", RAW, 1, image(1, pictures(1)[0])) for name in ("left", "right")]
    folder = write(tmp_path / "bag", messages, StoragePlugin.MCAP)
    with pytest.raises(BagError, match="several cameras") as caught:
        read(folder)
    assert "\x1b" not in str(caught.value) and r"/left\x1b[31m" in str(caught.value)


def test_a_topic_that_the_metadata_does_not_list(tmp_path: Path) -> None:
    """As where a file was taken from another bag."""
    messages = [("/camera", RAW, time, image(time, rgb)) for time, rgb in enumerate(pictures(), 1)]
    bag = write(tmp_path / "bag", messages, StoragePlugin.MCAP)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("/camera", "/eye"))
    with pytest.raises(BagLoss, match="announces 0 messages on /camera and holds 3"):
        read(bag)
    with open_bag(bag, allow_loss=True) as opened:
        assert "announces 3 messages on /eye, a topic that its files do not have" in opened.notes[0]
    assert len(read(bag, allow_loss=True)) == 3
