"""Transforms between frames over time: the lookups of tf2's buffer, for machines without tf2."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion

Array = NDArray[np.float64]
Quaternion = tuple[float, float, float, float]

CACHE_NANOSECONDS = 10_000_000_000
"""Time for which a transform is kept behind the newest one of its frame, as in tf2."""
_LONGEST_CHAIN = 1000


class TransformError(ValueError):
    """A transform is unknown; the message is a sentence."""


@dataclass(frozen=True)
class Transform:
    """Pose of a child frame in its parent: transforms points of the child to points of the parent."""

    translation: tuple[float, float, float]
    quaternion: Quaternion


@dataclass(eq=False)
class _Link:
    """Transforms of one child frame. stamps ascend; a static transform has none."""

    parent: str
    static: Transform | None = None
    stamps: list[int] = field(default_factory=list)
    transforms: list[Transform] = field(default_factory=list)


class TransformBuffer:
    """A tree of frames, each stored with its parent. Not thread-safe."""

    def __init__(self, cache: int = CACHE_NANOSECONDS) -> None:
        self._cache = cache
        self._links: dict[str, _Link] = {}

    def set(self, parent: str, child: str, stamp: int, transform: Transform, static: bool = False) -> None:
        """Store the transform from a child to its parent at a stamp (ns); a static one is valid at any time.

        Raises TransformError for empty or equal names, and for values that are not a valid position or
        rotation.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise TransformError(f"A transform from {parent!r} to {child!r} names no two frames.")
        numbers = np.array([*transform.translation, *transform.quaternion])
        if not np.isfinite(numbers).all() or abs(float(np.linalg.norm(numbers[3:])) - 1) > 0.01:
            raise TransformError(f"The transform from {parent!r} to {child!r} is not finite, or no rotation.")
        link = self._links.get(child)
        if link is None or link.parent != parent:
            link = self._links[child] = _Link(parent)
        if static:
            link.static = transform
            return
        index = bisect_left(link.stamps, stamp)
        if index < len(link.stamps) and link.stamps[index] == stamp:
            link.transforms[index] = transform
            return
        if link.stamps and stamp < link.stamps[-1] - self._cache:
            # Time was set back, as when a simulation restarts: the earlier transforms are of another run.
            link.stamps.clear()
            link.transforms.clear()
            index = 0
        link.stamps.insert(index, stamp)
        link.transforms.insert(index, transform)
        while link.stamps[0] < link.stamps[-1] - self._cache:
            del link.stamps[0], link.transforms[0]

    def lookup(self, target: str, source: str, stamp: int) -> tuple[Array, Array]:
        """Return the rotation (3x3) and translation (3) that transform points of `source` at a stamp to
        `target`.

        stamp: nanoseconds; 0 is the newest time at which all transforms between the two are known. Transforms
        are interpolated between stamps. Raises TransformError for unknown or unconnected frames, and for a
        time outside the stored range.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        up, down = self._chain(source), self._chain(target)
        shared = next((frame for frame in up if frame in down), None)
        for name in (target, source):
            if name not in self._links and not any(name == link.parent for link in self._links.values()):
                raise TransformError(f"No transform names the frame {name!r}.")
        if shared is None:
            raise TransformError(f"The frames {target!r} and {source!r} are not connected.")
        chains = (up[: up.index(shared)], down[: down.index(shared)])
        if stamp == 0:
            newest = [
                self._links[f].stamps[-1] for chain in chains for f in chain if self._links[f].static is None
            ]
            stamp = min(newest, default=0)
        to_shared, target_to_shared = (self._compose(chain, stamp) for chain in chains)
        rotation, translation = target_to_shared[0].T, -target_to_shared[0].T @ target_to_shared[1]
        return rotation @ to_shared[0], rotation @ to_shared[1] + translation

    def _chain(self, frame: str) -> list[str]:
        """The frame and its ancestors up to the root."""
        chain = [frame]
        while chain[-1] in self._links:
            chain.append(self._links[chain[-1]].parent)
            if len(chain) > _LONGEST_CHAIN or chain[-1] in chain[:-1]:
                raise TransformError(f"The parents of the frame {frame!r} go in a circle.")
        return chain

    def _compose(self, chain: list[str], stamp: int) -> tuple[Array, Array]:
        rotation: Array = np.eye(3)
        translation: Array = np.zeros(3)
        for frame in chain:
            found = self._at(frame, stamp)
            turn = matrix_from_quaternion(found.quaternion)
            rotation, translation = turn @ rotation, turn @ translation + found.translation
        return rotation, translation

    def _at(self, frame: str, stamp: int) -> Transform:
        link = self._links[frame]
        if link.static is not None:
            return link.static
        index = bisect_left(link.stamps, stamp)
        if index < len(link.stamps) and link.stamps[index] == stamp:
            return link.transforms[index]
        if index == 0 or index == len(link.stamps):
            edge = "oldest" if index == 0 else "newest"
            known = link.stamps[0 if index == 0 else -1]
            raise TransformError(
                f"The {edge} transform of the frame {frame!r} is {abs(stamp - known) / 1e9:.3f} s "
                f"{'after' if index == 0 else 'before'} the time asked for ({stamp / 1e9:.3f} s)."
            )
        before, after = link.stamps[index - 1], link.stamps[index]
        share = (stamp - before) / (after - before)
        return _between(link.transforms[index - 1], link.transforms[index], share)


def _between(first: Transform, second: Transform, share: float) -> Transform:
    """Interpolate linearly between two positions, and along the shorter arc between two rotations."""
    a, b = np.array(first.translation), np.array(second.translation)
    x, y, z = (float(value) for value in a + share * (b - a))
    return Transform((x, y, z), slerp(first.quaternion, second.quaternion, share))


def slerp(first: Quaternion, second: Quaternion, share: float) -> Quaternion:
    """Spherical linear interpolation between two rotations, along the shorter arc; share: 0..1."""
    a, b = np.array(first) / np.linalg.norm(first), np.array(second) / np.linalg.norm(second)
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = float(np.arccos(min(1.0, cosine)))
    if angle < 1e-6:
        mixed = a + share * (b - a)
    else:
        mixed = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    x, y, z, w = (float(value) for value in mixed / np.linalg.norm(mixed))
    return x, y, z, w
