"""Topic names of a camera. Topics of image_transport stay beside the image topic, wherever it is remapped
to."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node

COMPRESSED, COMPRESSED_DEPTH = "compressed", "compressedDepth"


@dataclass(frozen=True)
class CameraTopics:
    """Full topic names of one camera."""

    image: str
    depth: str
    camera_info: str


def camera_topics(node: Node, camera: str, image_transport: str, depth_transport: str) -> CameraTopics:
    """Resolve the topics of a camera under the node's remappings.

    camera: its namespace, empty for a single camera; image_transport: raw or compressed; depth_transport: raw
    or compressedDepth. Remapping `image` also moves the related topics, as in image_transport:
    `image/compressed` becomes `<image>/compressed`, and `camera_info` the one beside the image, unless they
    are remapped themselves. So does remapping `image/compressed` alone, where that is read.
    """
    prefix = f"{camera}/" if camera else ""
    return CameraTopics(
        _transported(node, f"{prefix}image", image_transport),
        _transported(node, f"{prefix}depth", depth_transport),
        _camera_info(node, prefix, image_transport),
    )


def is_remapped(node: Node, name: str) -> bool:
    """Whether a remapping rule of the command line or launch file renames this topic."""
    return bool(node.resolve_topic_name(name) != node.resolve_topic_name(name, only_expand=True))


def _transported(node: Node, name: str, transport: str) -> str:
    base = str(node.resolve_topic_name(name))
    if transport == "raw":
        return base
    relative = f"{name}/{transport}"
    if is_remapped(node, relative):
        return str(node.resolve_topic_name(relative))
    # `image` may have been remapped to the compressed topic itself.
    return base if base.endswith(f"/{transport}") else f"{base}/{transport}"


def _camera_info(node: Node, prefix: str, image_transport: str) -> str:
    name, image = f"{prefix}camera_info", f"{prefix}image"
    read = f"{image}/{image_transport}"
    moved = read if image_transport != "raw" and is_remapped(node, read) else image
    if is_remapped(node, name) or not is_remapped(node, moved):
        return str(node.resolve_topic_name(name))
    found = str(node.resolve_topic_name(moved)).removesuffix(f"/{COMPRESSED}")
    return f"{found.rpartition('/')[0]}/camera_info"
