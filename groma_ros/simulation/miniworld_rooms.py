"""Miniworld's rooms, furniture and renderer as one environment. Needs miniworld, which only `.venv-sim` has.

World axes here are x and y on the floor and z up, metres; Miniworld's own have y up, and are (x, z, -y) of
ours.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.drawing import Camera
from groma_ros.simulation.shapes import rotation_z
from groma_ros.simulation.world_objects import OWN, Array
from groma_ros.types import FloatArray, Intrinsics

NEAR, FAR = 0.1, 60.0
_MESHES = {
    "chair": "office_chair",
    "desk": "office_desk",
    "barrel": "barrel",
    "barrier": "barrier",
    "cone": "cone",
    "door": "doom_door",
    "duck": "duckie",
    "keycard": "keycard",
    "medkit": "medkit",
    "potion": "potion",
    "tree": "tree",
    "pine tree": "tree_pine",
    "building": "building",
    "key": "key_red",
    "ball": "ball_red",
}


@dataclass(frozen=True)
class Furnishing:
    """An object in a room."""

    kind: str
    finish: str
    """`OWN` or the name of a colour."""
    rgb: tuple[float, float, float]
    """Its paint, 0..1."""
    height: float
    """Metres."""
    size: tuple[float, float, float]
    """Size of a box along x, y and z, metres."""
    place: tuple[float, float]
    """(x, y), metres."""
    turn: float
    """Radians about z."""


@dataclass(frozen=True)
class Room:
    """A rectangular room."""

    low: tuple[float, float]
    high: tuple[float, float]
    walls: str
    """Name of a texture."""
    floor: str
    """Name of a texture."""
    ceiling: str
    """Name of a texture; "" for an open sky."""
    height: float = 2.74


@dataclass(frozen=True)
class Opening:
    """A passage between two rooms, given by their indices: from `low` to `high` along the axis (0: x, 1: y)
    of their wall."""

    rooms: tuple[int, int]
    axis: int
    low: float
    high: float


@dataclass(frozen=True)
class House:
    """Rooms, openings between them, furniture and light."""

    rooms: tuple[Room, ...]
    openings: tuple[Opening, ...]
    furniture: tuple[Furnishing, ...]
    sky: tuple[float, float, float] = (0.25, 0.82, 1.0)
    """RGB, 0..1."""
    lamp: tuple[float, float, float] = (0.0, 0.0, 2.5)
    light: tuple[float, float, float] = (0.7, 0.7, 0.7)
    """RGB, 0..1."""
    ambient: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """RGB, 0..1."""


def _prepare() -> None:
    import pyglet

    pyglet.options["headless"] = True


def texture_names() -> list[str]:
    """Names of Miniworld's surfaces, by file."""
    _prepare()
    import miniworld

    return sorted(path.stem for path in (Path(miniworld.__file__).parent / "textures").glob("*.png"))


class Rooms:
    """A house that can be rendered from any position in it, for use by one thread.

    radius: of the body in `is_free`, metres.
    """

    def __init__(self, width: int, height: int, samples: int = 4) -> None:
        _prepare()
        from miniworld.miniworld import MiniWorldEnv
        from miniworld.opengl import FrameBuffer, Texture

        Texture.load = staticmethod(_load_texture)
        self._house: House | None = None
        self._painted: dict[tuple[str, tuple[float, float, float]], Any] = {}
        outer = self

        class Environment(MiniWorldEnv):
            """Miniworld with our own house."""

            def _gen_world(self) -> None:
                outer._build(self)

        self._make: Callable[[], Any] = lambda: Environment(
            obs_width=16, obs_height=12, window_width=16, window_height=12
        )
        self._environment: Any = None
        self.width, self.height = width, height
        self._frame_buffers: tuple[Any, Any] | None = None
        self._open_buffers: Callable[[], tuple[Any, Any]] = lambda: (
            FrameBuffer(width, height, samples),
            FrameBuffer(width, height, 1),
        )

    @property
    def house(self) -> House:
        """The current house. Raises RuntimeError before the first `enter`."""
        if self._house is None:
            raise RuntimeError("Enter a house first.")
        return self._house

    def enter(self, house: House) -> None:
        """Replace the current house."""
        self._house = house
        if self._environment is None:
            self._environment = self._make()
            self._frame_buffers = self._open_buffers()
        else:
            self._environment.reset(seed=0)
        environment = self._environment
        environment.sky_color, environment.light_color = list(house.sky), list(house.light)
        x, y, z = house.lamp
        environment.light_pos, environment.light_ambient = [x, z, -y], list(house.ambient)
        environment._render_static()

    def _build(self, environment: Any) -> None:
        house = self._house
        if house is None:
            raise RuntimeError("Enter a house before it is built.")
        rooms = []
        for room in house.rooms:
            keywords = {
                "wall_tex": _surface(room.walls),
                "floor_tex": _surface(room.floor),
                "wall_height": room.height,
            }
            keywords |= {"ceil_tex": _surface(room.ceiling)} if room.ceiling else {"no_ceiling": True}
            (x1, y1), (x2, y2) = room.low, room.high
            rooms.append(environment.add_rect_room(x1, x2, -y2, -y1, **keywords))
        for opening in house.openings:
            first, second = (rooms[index] for index in opening.rooms)
            if opening.axis == 0:
                environment.connect_rooms(first, second, min_x=opening.low, max_x=opening.high, max_y=2.2)
            else:
                environment.connect_rooms(first, second, min_z=-opening.high, max_z=-opening.low, max_y=2.2)
        environment._gen_static_data()
        for item in house.furniture:
            x, y = item.place
            environment.place_entity(self._entity(item), pos=np.array([x, 0.0, -y]), dir=item.turn)
        environment.place_agent(pos=np.array([*_middle(house.rooms[0])]), dir=0.0)

    def _entity(self, item: Furnishing) -> Any:
        from miniworld.entity import Box, MeshEnt

        if item.kind == "box":

            class PaintedBox(Box):
                def randomize(self, params: Any, rng: Any) -> None:
                    self.color_vec = np.array(item.rgb)

            x, y, z = item.size
            return PaintedBox("red", np.array([x, z, y]))
        entity = MeshEnt(mesh_name=_MESHES[item.kind], height=item.height)
        if item.finish != OWN:
            entity.mesh = self._paint(_MESHES[item.kind], item.rgb)
        return entity

    def _paint(self, name: str, rgb: tuple[float, float, float]) -> Any:
        """Return a mesh in one colour that keeps the brightness of its texture."""
        key = (name, rgb)
        if key not in self._painted:
            self._painted[key] = _painted_mesh(name, rgb)
        return self._painted[key]

    def camera(
        self, place: tuple[float, float], turn: float, height: float, pitch: float, field: float
    ) -> Camera:
        """A camera in the house. turn, pitch: radians, up positive; field: vertical field of view,
        radians."""
        forward = np.array([np.cos(turn) * np.cos(pitch), np.sin(turn) * np.cos(pitch), np.sin(pitch)])
        right = np.array([np.sin(turn), -np.cos(turn), 0.0])
        focal = self.height / 2 / np.tan(field / 2)
        intrinsics = Intrinsics(focal, focal, self.width / 2, self.height / 2, self.width, self.height)
        return Camera(
            np.array([*place, height]), np.stack([right, np.cross(forward, right), forward], 1), intrinsics
        )

    def picture(self, camera: Camera) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres along the optical axis."""
        smooth, plain = self._buffers()
        self._look(smooth, camera)
        rgb = np.ascontiguousarray(self._environment._render_world(smooth, render_agent=False))
        self._look(plain, camera)
        self._environment._render_world(plain, render_agent=False)
        return rgb, self._depth(plain)

    def frame(self, camera: Camera) -> tuple[NDArray[np.uint8], FloatArray]:
        """Render without anti-aliasing, in half the time of `picture`."""
        _, plain = self._buffers()
        self._look(plain, camera)
        rgb = np.ascontiguousarray(self._environment._render_world(plain, render_agent=False))
        return rgb, self._depth(plain)

    def _buffers(self) -> tuple[Any, Any]:
        if self._frame_buffers is None:
            raise RuntimeError("Enter a house before looking at it.")
        return self._frame_buffers

    def alone(self, camera: Camera, index: int) -> FloatArray:
        """Depth of one piece of furniture with nothing around it; `FAR` or more elsewhere."""
        _, plain = self._buffers()
        self._look(plain, camera)
        self._environment.entities[index].render()
        plain.resolve()
        return self._depth(plain)

    def points(self, index: int) -> Array:
        """Points Px3 of a piece of furniture's surface in the world."""
        entity = self._environment.entities[index]
        if hasattr(entity, "mesh"):
            own = (
                np.concatenate([np.array(part.vertices).reshape(-1, 3) for part in entity.mesh.vlists])
                * entity.scale
            )
        else:
            x, y, z = entity.size
            own = np.array([[a * x / 2, b * y, c * z / 2] for a in (-1, 1) for b in (0, 1) for c in (-1, 1)])
        local = own[:, [0, 2, 1]] * [1, -1, 1]
        x, _, z = entity.pos
        return np.asarray(local @ rotation_z(entity.dir).T + [x, -z, 0.0])

    def is_free(self, place: tuple[float, float], radius: float, ignore: int = -1) -> bool:
        """Whether a round body stands clear of walls and of the furniture's own outlines."""
        from miniworld.math import intersect_circle_segs

        x, y = place
        if intersect_circle_segs(np.array([x, 0.0, -y]), radius, self._environment.wall_segs) is not None:
            return False
        count = len(self._house.furniture) if self._house else 0
        return all(self.distance(place, index) >= radius for index in range(count) if index != ignore)

    def distance(self, place: tuple[float, float], index: int) -> float:
        """Distance on the floor to a piece of furniture's outline, metres; 0 inside."""
        if self._house is None:
            raise RuntimeError("Enter a house before measuring in it.")
        item = self._house.furniture[index]
        low, high = self.outline(index)
        local = rotation_z(-item.turn)[:2, :2] @ (np.array(place) - item.place)
        outside = np.maximum(np.maximum(low - local, local - high), 0)
        return float(np.hypot(*outside))

    def outline(self, index: int) -> tuple[Array, Array]:
        """Low and high corners (x, y) of a piece of furniture's outline, in its own turned frame about its
        place."""
        entity = self._environment.entities[index]
        if hasattr(entity, "mesh"):
            low, high = entity.mesh.min_coords * entity.scale, entity.mesh.max_coords * entity.scale
        else:
            x, _, z = entity.size
            low, high = np.array([-x / 2, 0, -z / 2]), np.array([x / 2, 0, z / 2])
        return np.array([low[0], -high[2]]), np.array([high[0], -low[2]])

    def top_view(
        self, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], Callable[[float, float], tuple[int, int]]]:
        """A picture of the house from above, (width, height) pixels, and a function from floor positions to
        its pixels."""
        from miniworld.opengl import FrameBuffer

        environment = self._environment
        buffer = FrameBuffer(*size, 4)
        for room in environment.rooms:
            room.no_ceiling = True
        environment._render_static()
        picture, scale = environment.render_top_view(buffer, render_agent=False, return_scale=True)

        def pixel(x: float, y: float) -> tuple[int, int]:
            return round(x * scale["x_scale"] + scale["x_offset"]), round(
                -y * scale["z_scale"] + scale["z_offset"]
            )

        return np.ascontiguousarray(picture), pixel

    def _look(self, buffer: Any, camera: Camera) -> None:
        """Clear a frame buffer and set up the camera in it."""
        from pyglet import gl

        environment = self._environment
        environment.shadow_window.switch_to()
        buffer.bind()
        gl.glClearColor(*environment.sky_color, 1.0)
        gl.glClearDepth(1.0)
        gl.glClear(gl.GL_COLOR_BUFFER_BIT | gl.GL_DEPTH_BUFFER_BIT)
        gl.glMatrixMode(gl.GL_PROJECTION)
        gl.glLoadIdentity()
        k = camera.intrinsics
        gl.gluPerspective(
            float(np.rad2deg(2 * np.arctan(k.height / 2 / k.fy))), k.width / k.height, NEAR, FAR
        )
        gl.glMatrixMode(gl.GL_MODELVIEW)
        gl.glLoadIdentity()
        eye, ahead, up = (
            _to_miniworld(v) for v in (camera.position, camera.rotation[:, 2], -camera.rotation[:, 1])
        )
        gl.gluLookAt(*eye, *(eye + ahead), *up)

    def _depth(self, buffer: Any) -> FloatArray:
        return np.ascontiguousarray(buffer.get_depth_map(NEAR, FAR)[..., 0], np.float32)


def _middle(room: Room) -> Array:
    return np.array([(room.low[0] + room.high[0]) / 2, 0.0, -(room.low[1] + room.high[1]) / 2])


def _to_miniworld(vector: Array) -> Array:
    return np.array([vector[0], vector[2], -vector[1]])


def _surface(name: str) -> str:
    """Register a name under which Miniworld finds exactly this texture; its own names stand for several."""
    import miniworld
    from miniworld.opengl import Texture

    key = f"exactly {name}"
    Texture.tex_paths.setdefault(key, [str(Path(miniworld.__file__).parent / "textures" / f"{name}.png")])
    return key


def _load_texture(path: str) -> Any:
    """Load a picture as a texture in Miniworld's way, except for decoding.

    pyglet converts a picture without an alpha channel pixel by pixel in Python, which takes seconds per
    texture and most of the time of a scene.
    """
    import cv2
    import pyglet
    from pyglet import gl

    pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise FileNotFoundError(
            f"The texture {path} of Miniworld cannot be read; run `make setup-sim` again."
        )
    codes = {2: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA}
    code = codes[2] if pixels.ndim == 2 else codes.get(pixels.shape[2], cv2.COLOR_BGRA2RGBA)
    rgba = np.ascontiguousarray(cv2.cvtColor(pixels, code)[::-1])  # OpenGL's rows start at the bottom
    height, width = rgba.shape[:2]
    image = pyglet.image.ImageData(width, height, "RGBA", rgba.tobytes())
    texture = image.get_texture()
    gl.glEnable(texture.target)
    gl.glBindTexture(texture.target, texture.id)
    data = rgba.ctypes.data_as(ctypes.c_void_p)
    rows = (gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, data)
    gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, gl.GL_RGB, width, height, 0, *rows)
    gl.glHint(gl.GL_GENERATE_MIPMAP_HINT, gl.GL_NICEST)
    gl.glGenerateMipmap(gl.GL_TEXTURE_2D)
    gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR)
    gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR_MIPMAP_LINEAR)
    gl.glBindTexture(gl.GL_TEXTURE_2D, 0)
    return texture


def _painted_mesh(name: str, rgb: Sequence[float]) -> Any:
    """Return a mesh whose textures are painted over.

    The paint is in the texture instead of the vertex colours: Miniworld scales normals with the mesh, so that
    light saturates on the latter.
    """
    import pyglet
    from miniworld.objmesh import ObjMesh

    mesh = copy.copy(ObjMesh.get(name))
    parts = []
    for part in mesh.vlists:
        kept = [("v3f", list(part.vertices)), ("t2f", list(part.tex_coords)), ("n3f", list(part.normals))]
        parts.append(
            pyglet.graphics.vertex_list(part.get_size(), *kept, ("c3f", [1.0] * (3 * part.get_size())))
        )
    mesh.vlists = parts
    mesh.textures = [_painted_texture(texture, rgb) for texture in mesh.textures]
    return mesh


def _painted_texture(texture: Any, rgb: Sequence[float]) -> Any:
    """The brightness of a texture in one colour, with its usual shade as that colour; plain if there is no
    texture."""
    import pyglet

    if texture is None:
        shade = np.full((8, 8), 1.0)
    else:
        image = texture.get_image_data()
        # Keep the original format: pyglet converts others pixel by pixel in Python.
        data = np.frombuffer(image.get_data(image.format, image.width * len(image.format)), np.uint8)
        grey = data.reshape(image.height, image.width, -1)[..., :3].astype(np.float64).mean(-1)
        usual = float(np.median(grey[grey > 12])) if (grey > 12).any() else 255.0
        shade = np.clip(1 + (grey / usual - 1) * 0.4, 0.6, 1.25)
    pixels = np.clip(shade[..., None] * np.asarray(rgb) * 255, 0, 255).astype(np.uint8)
    height, width = shade.shape
    return pyglet.image.ImageData(width, height, "RGB", pixels.tobytes()).get_texture()
