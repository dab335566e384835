"""All bag formats give the same frames; invalid ones give an error."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from groma_ros.io.bag_topics import find_camera
from groma_ros.io.bags import COMPRESSED, RAW, RecordedCamera, RecordedImage, open_bag, recorded_images

DEMO = Path(__file__).parents[2] / "demo" / "tabletop.mcap"
STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types


def image(stamp: int, rgb: NDArray[Any], encoding: str = "rgb8") -> Any:
    """A raw image message."""
    height, width = rgb.shape[:2]
    time = TYPES["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    header = TYPES["std_msgs/msg/Header"](stamp=time, frame_id="camera")
    data = np.ascontiguousarray(rgb, np.uint8).ravel()
    return TYPES[RAW](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=3 * width,
        data=data,
    )


def read(
    path: Path,
    wanted: Callable[[int], bool] = lambda number: True,
    topic: str | None = None,
    allow_loss: bool = False,
) -> list[RecordedImage]:
    """The images of a bag's camera."""
    with open_bag(path, allow_loss) as bag:
        return list(recorded_images(bag, find_camera(bag, topic), wanted))


def camera_of(path: Path, topic: str | None = None) -> RecordedCamera:
    """The camera that is found in a bag."""
    with open_bag(path) as bag:
        return find_camera(bag, topic)


def write(
    path: Path, messages: Sequence[tuple[str, str, int, Any]], plugin: StoragePlugin, compress: str = ""
) -> Path:
    """A rosbag2 folder of (topic, type, time, message or bytes)."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compress:
        writer.set_compression(CompressionMode[compress], CompressionFormat.ZSTD)
    with writer:
        links: dict[tuple[str, str], Any] = {}
        for topic, kind, time, message in messages:
            if (topic, kind) not in links:
                links[topic, kind] = writer.add_connection(topic, kind, typestore=STORE)
            data = message if isinstance(message, bytes) else STORE.serialize_cdr(message, kind)
            writer.write(links[topic, kind], time, data)
    return path


def pictures(count: int = 3) -> list[NDArray[Any]]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (6 + index, 8, 3), np.uint8) for index in range(count)]


@pytest.mark.parametrize(
    ("plugin", "compress"),
    [
        (StoragePlugin.SQLITE3, ""),
        (StoragePlugin.SQLITE3, "MESSAGE"),
        (StoragePlugin.SQLITE3, "FILE"),
        (StoragePlugin.MCAP, ""),
        (StoragePlugin.MCAP, "STORAGE"),
        (StoragePlugin.MCAP, "MESSAGE"),
        (StoragePlugin.MCAP, "FILE"),
    ],
)
def test_every_form_gives_the_same_frames(tmp_path: Path, plugin: StoragePlugin, compress: str) -> None:
    """Pictures of changing size, stamps that repeat and go back: the order is that of the recording."""
    shown, stamps = pictures(), [5_000_000_007, 5_000_000_007, 4_999_999_999]
    messages = [
        ("/eye/image", RAW, 10 * (index + 1), image(stamps[index], rgb)) for index, rgb in enumerate(shown)
    ]
    folder = write(tmp_path / "bag", messages, plugin, compress)
    bags = [folder, next(folder.glob("bag.*"))]
    for bag in bags:
        assert camera_of(bag) == RecordedCamera("/eye/image", RAW, 3)
        shots = read(bag)
        assert [(shot.number, shot.time, shot.cause) for shot in shots] == [
            (0, 10, ""),
            (1, 20, ""),
            (2, 30, ""),
        ]
        for shot, rgb, stamp in zip(shots, shown, stamps, strict=True):
            assert shot.frame is not None
            np.testing.assert_array_equal(shot.frame.rgb, rgb)
            assert (shot.frame.stamp, shot.frame.frame_id) == (stamp, "camera")


def test_the_demo_s_bag_and_every_tenth_frame() -> None:
    assert camera_of(DEMO) == RecordedCamera("/camera/image/compressed", COMPRESSED, 60)
    shots = read(DEMO, lambda number: number % 10 == 0)
    assert [shot.number for shot in shots] == [0, 10, 20, 30, 40, 50]
    assert all(shot.frame is not None and shot.frame.rgb.shape == (480, 640, 3) for shot in shots)


def test_undecodable_message_keeps_its_index(tmp_path: Path) -> None:
    good, odd = image(1, pictures(1)[0]), image(3, pictures(1)[0], "sixels")
    folder = write(
        tmp_path / "bag",
        [("/a", RAW, 1, good), ("/a", RAW, 2, b"\0\1\0\0junk"), ("/a", RAW, 3, odd)],
        StoragePlugin.MCAP,
    )
    shots = read(folder)
    assert [shot.cause for shot in shots] == ["", "damaged", "encoding"]
    assert shots[1].frame is None and shots[1].refusal.startswith(
        "Message 1 is not a sensor_msgs/msg/Image: "
    )
    assert "'sixels'" in shots[2].refusal


def test_which_camera(tmp_path: Path) -> None:
    shot, text = image(1, pictures(1)[0]), TYPES["std_msgs/msg/String"](data="hello")
    messages = [(topic, RAW, time, shot) for time, topic in enumerate(("/left", "/right", "/left/depth"))]
    messages.append(("/words", "std_msgs/msg/String", 4, text))
    folder = write(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    assert camera_of(folder, "/right") == RecordedCamera("/right", RAW, 1)
    assert camera_of(folder, "/left/depth").count == 1
    for topic, sentence in {
        None: "several cameras; name one of /left, /right with --topic",
        "/front": "no topic '/front'; it has /left (sensor_msgs/msg/Image), /left/depth",
        "/words": "has the type std_msgs/msg/String; a camera has",
    }.items():
        with pytest.raises(ValueError, match="bag") as caught:
            camera_of(folder, topic)
        assert sentence in str(caught.value)
    silent = write(tmp_path / "silent", messages[3:], StoragePlugin.MCAP)
    with pytest.raises(ValueError, match=r"holds no camera, .*; it has /words \(std_msgs/msg/String\)\."):
        camera_of(silent)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_without_images_says_why(tmp_path: Path, plugin: StoragePlugin) -> None:
    """Its image topic holds no messages, or shows depth."""
    with Writer(tmp_path / "empty", version=9, storage_plugin=plugin) as writer:
        writer.add_connection("/cam/image/compressed", COMPRESSED, typestore=STORE)
    with pytest.raises(ValueError, match=r"^The topic /cam/image/compressed of .* holds no messages\.$"):
        camera_of(tmp_path / "empty")
    depth = image(1, pictures(1)[0], "16UC1")
    folder = write(tmp_path / "depth", [("/cam/image", RAW, 1, depth)], plugin)
    with pytest.raises(
        ValueError,
        match=r"its image topic is taken for depth \(/cam/image\); if one is a camera, name it with --topic",
    ):
        camera_of(folder)
    both = [("/cam/image", RAW, 1, depth), ("/deep", RAW, 1, depth)]
    with pytest.raises(ValueError, match=r"image topics are taken for depth \(/cam/image, /deep\);"):
        camera_of(write(tmp_path / "both", both, plugin))


def test_unknown_message_type(tmp_path: Path) -> None:
    """An unknown type beside the camera does no harm; if requested, it is refused by name."""
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        camera = writer.add_connection("/eye", RAW, typestore=STORE)
        thing = writer.add_connection(
            "/arm", "my_robot/msg/Grip", msgdef="float64 force\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(thing, 1, b"\0\1\0\0" + bytes(8))
        writer.write(camera, 2, STORE.serialize_cdr(image(1, pictures(1)[0]), RAW))
    assert [shot.number for shot in read(tmp_path / "bag")] == [0]
    with pytest.raises(
        ValueError,
        match="The topic /arm of .* has the type my_robot/msg/Grip; a camera has sensor_msgs/msg/Image or",
    ):
        camera_of(tmp_path / "bag", "/arm")


def test_one_name_two_types(tmp_path: Path) -> None:
    text = TYPES["std_msgs/msg/String"](data="hello")
    messages = [("/eye", RAW, 1, image(1, pictures(1)[0])), ("/eye", "std_msgs/msg/String", 2, text)]
    folder = write(tmp_path / "bag", messages, StoragePlugin.MCAP)
    with pytest.raises(
        ValueError,
        match="holds two topics of the name /eye, of the types sensor_msgs/msg/Image and std_msgs/msg/String",
    ):
        camera_of(folder, "/eye")


def test_bags_that_cannot_be_read(tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(DEMO.read_bytes()[:100_000])
    folder = write(tmp_path / "sql", [("/a", RAW, 1, image(1, pictures(1)[0]))], StoragePlugin.SQLITE3)
    torn = tmp_path / "torn.db3"
    torn.write_bytes((folder / "sql.db3").read_bytes()[:5000])
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "empty.db3").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "plain").mkdir()
    for name in ("monday.mcap", "tuesday.mcap"):
        shutil.copy(DEMO, tmp_path / "plain" / name)
    (tmp_path / "bare").mkdir()
    topicless = write(tmp_path / "topicless", [], StoragePlugin.MCAP)
    for path, sentence in {
        tmp_path / "none.mcap": "does not exist",
        tmp_path / "notes.txt": "is not a bag",
        tmp_path / "plain": "holds several recordings (monday.mcap, tuesday.mcap); name one.",
        tmp_path / "bare": "is not a rosbag2 bag: it has no metadata.yaml, .mcap or .db3 file.",
        cut: "is truncated or damaged at byte ",
        torn: "is truncated or damaged: sqlite says",
        tmp_path / "empty.mcap": "is empty: it has no bytes",
        tmp_path / "empty.db3": "is empty: it has no bytes",
        topicless: "holds no topics",
    }.items():
        with pytest.raises(ValueError, match=path.name) as caught:
            read(path)
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_bag_that_breaks_off_in_the_middle(tmp_path: Path) -> None:
    """Damage inside the data: what comes before it is read, then a sentence."""
    damaged = tmp_path / "damaged.mcap"
    data = bytearray(DEMO.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400_000] = bytes(400_000)
    damaged.write_bytes(bytes(data))
    with open_bag(damaged) as bag:
        images = recorded_images(bag, find_camera(bag))
        assert next(images).number == 0
        with pytest.raises(ValueError, match=r"damaged.mcap is truncated or damaged at byte \d+ of \d+: "):
            list(images)
