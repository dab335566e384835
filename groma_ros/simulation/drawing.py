"""Off-screen rendering of geoms with MuJoCo; the only module of our own worlds that uses MuJoCo or OpenGL."""

from __future__ import annotations

import ctypes
import importlib
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.simulation.shapes import MESHES, Array
from groma_ros.types import FloatArray, Intrinsics

NEAR, FAR = 0.05, 12.0
MAX_GEOMS = 160
_TEXTURE_SIZE = 128
_ADVICE = (
    "Off-screen rendering with {} does not work here ({}); install Mesa (apt-get install libegl1 "
    "libgl1-mesa-dri libgles2), "
    "or libosmesa6 and set MUJOCO_GL=osmesa."
)


class RenderingUnavailable(RuntimeError):
    """Rendering is impossible on this machine; the message names the package to install."""


@dataclass(frozen=True, eq=False)
class Geom:
    """A coloured solid in the world."""

    shape: str
    """See `shapes.Part`."""
    scale: tuple[float, float, float]
    """See `shapes.Part`."""
    position: Array
    rotation: Array
    """3x3."""
    rgb: tuple[float, float, float]
    """0..1."""
    label: int = -1
    """Label of its pixels in `Canvas.labels`; -1 for none."""
    specular: float = 0.2
    shininess: float = 0.3
    texture: int = -1
    """Index into `TEXTURES`, or -1."""
    tile: float = 2.0
    """Repeats of the texture per metre."""


@dataclass(frozen=True, eq=False)
class Light:
    """A light in the world."""

    position: Array
    """Metres."""
    direction: Array
    """Unit vector."""
    rgb: Array
    """Diffuse colour, 0..1."""
    specular: float = 0.3
    shadow: bool = False
    """Whether it casts shadows."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera in the world."""

    position: Array
    rotation: Array
    """3x3, columns are the optical axes (x right, y down, z forward) in world axes."""
    intrinsics: Intrinsics

    def to_optical(self, points: Array) -> Array:
        """World points (P, 3) in the optical frame, metres."""
        return (np.asarray(points) - self.position) @ self.rotation

    def project(self, points: Array) -> Array:
        """World points (P, 3) to pixels (P, 2), xy; points at or behind the camera go to infinity."""
        local = self.to_optical(points)
        depth = np.where(local[:, 2] > NEAR, local[:, 2], np.nan)
        k = self.intrinsics
        pixels = np.stack([k.fx * local[:, 0] / depth + k.cx, k.fy * local[:, 1] / depth + k.cy], 1)
        return np.where(np.isnan(pixels), np.inf, pixels)


@dataclass(frozen=True, eq=False)
class World:
    """Everything that is drawn at once."""

    geoms: tuple[Geom, ...]
    lights: tuple[Light, ...]
    ambient: Array = field(default_factory=lambda: np.full(3, 0.3))
    """RGB of the ambient light."""


def _textures() -> dict[str, NDArray[np.uint8]]:
    """Grey patterns of 128x128 that tint a geom's colour: grain, wood, tiles, checker, stripes, blotches,
    speckle."""
    rng = np.random.default_rng(7)
    n = _TEXTURE_SIZE
    y, x = np.mgrid[0:n, 0:n] / n

    def waves(count: int, top: int) -> Array:
        total = np.zeros((n, n))
        for _ in range(count):
            kx, ky = rng.integers(-top, top + 1, 2)
            total += np.sin(2 * np.pi * (kx * x + ky * y) + rng.uniform(0, 7))
        scaled: Array = total / np.abs(total).max()
        return scaled

    def shades(pattern: Array, low: float) -> NDArray[np.uint8]:
        unit = (pattern - pattern.min()) / (pattern.max() - pattern.min())
        grey: NDArray[np.uint8] = (255 * (low + (1 - low) * unit)).astype(np.uint8)
        return grey

    grain = rng.normal(size=(n, n))
    wood = np.sin(2 * np.pi * (6 * x + 0.35 * waves(6, 2))) + 0.4 * rng.normal(size=(1, n)) + 0.1 * grain
    gap = np.minimum(np.minimum((4 * x) % 1, 1 - (4 * x) % 1), np.minimum((4 * y) % 1, 1 - (4 * y) % 1))
    return {
        "grain": shades(np.clip(grain, -2, 2), 0.85),
        "wood": shades(wood, 0.72),
        "tiles": shades(np.minimum(gap, 0.04) + 0.004 * waves(5, 4), 0.7),
        "checker": shades(((2 * x).astype(int) + (2 * y).astype(int)) % 2 + 0.02 * grain, 0.68),
        "stripes": shades(np.sign(np.sin(2 * np.pi * 4 * y)) + 0.02 * grain, 0.75),
        "blotches": shades(waves(14, 4), 0.72),
        "speckle": shades((rng.random((n, n)) > 0.96) * -1.0 + 0.1 * grain, 0.6),
    }


TEXTURES = tuple(_textures())


def _open_context(width: int, height: int) -> Any:
    """Create an OpenGL context on the platform named by MUJOCO_GL: by default EGL, or OSMesa if there is no
    libEGL."""
    # MuJoCo and PyOpenGL choose a platform when they are imported, so it must be chosen before a failure can
    # show.
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl" if _loads("libEGL.so.1") else "osmesa"
    platform = os.environ["MUJOCO_GL"]
    try:
        module = importlib.import_module(f"mujoco.{platform}")
    except Exception as error:  # the platform's library is missing or rejected, with many exception types
        if isinstance(error, ModuleNotFoundError) and error.name == "mujoco":
            raise RenderingUnavailable(
                "MuJoCo is not installed, which draws the scenes; run `make setup-full`."
            ) from error
        raise RenderingUnavailable(_ADVICE.format(platform, error)) from error
    try:
        context = module.GLContext(width, height)
        context.make_current()
    except Exception as error:  # no driver, display or device
        raise RenderingUnavailable(_ADVICE.format(platform, error)) from error
    return context


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _compile(width: int, height: int) -> Any:
    """The MuJoCo model that holds the meshes, the textures and the quality settings; it has no bodies."""
    import mujoco

    spec = mujoco.MjSpec()
    for name, mesh in MESHES.items():
        asset = spec.add_mesh(name=name, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
        asset.uservert, asset.userface = mesh.vertices.ravel().tolist(), mesh.faces.ravel().tolist()
    for name, grey in _textures().items():
        rgb = np.repeat(grey[..., None], 3, -1)
        size = _TEXTURE_SIZE
        texture = spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=size, height=size, nchannel=3
        )
        texture.data = rgb.tobytes()
        material = spec.add_material(name=name)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    visual = spec.visual
    visual.quality.shadowsize, visual.quality.offsamples = 1024, 0
    visual.quality.numslices, visual.quality.numstacks = 24, 16
    visual.global_.offwidth, visual.global_.offheight = width, height
    visual.map.shadowclip, visual.map.shadowscale = 0.9, 0.6
    spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
    return spec.compile()


class Canvas:
    """Draws worlds into pictures of at most its size. A canvas belongs to one thread; close it, or use it as
    a context manager.

    Raises RenderingUnavailable if neither EGL nor OSMesa works.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._gl: Any = _open_context(width, height)
        import mujoco

        self._mj: Any = mujoco
        self._model = _compile(width, height)
        self._scene = mujoco.MjvScene(self._model, maxgeom=MAX_GEOMS)
        self._context: Any = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._geoms, self._lights, self._cameras = self._scene.geoms, self._scene.lights, self._scene.camera
        self._types = {
            "box": mujoco.mjtGeom.mjGEOM_BOX,
            "ball": mujoco.mjtGeom.mjGEOM_SPHERE,
            "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
            "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
        }
        self._meshes = {name: self._mesh_frame(index) for index, name in enumerate(MESHES)}

    def _mesh_frame(self, index: int) -> tuple[int, Array, Array]:
        """The compiler moves a mesh to its inertial frame: return its id, and the rotation and shift back to
        our frame."""
        rotation = np.zeros(9)
        self._mj.mju_quat2Mat(rotation, self._model.mesh_quat[index])
        return index, rotation.reshape(3, 3), self._model.mesh_pos[index].copy()

    def picture(self, world: World, camera: Camera, scale: int = 1) -> tuple[NDArray[np.uint8], FloatArray]:
        """rgb uint8 HxWx3 and depth float32 HxW metres along the optical axis, `scale` times the camera's own
        size."""
        view = self._viewport(camera, scale)
        rgb = np.empty((view.height, view.width, 3), np.uint8)
        raw = np.empty((view.height, view.width), np.float32)
        self._draw(world, camera, view, segment=False)
        self._mj.mjr_readPixels(rgb, raw, view, self._context)
        depth = NEAR * FAR / (NEAR + raw.astype(np.float64) * (FAR - NEAR))
        return np.ascontiguousarray(rgb[::-1]), depth[::-1].astype(np.float32)

    def labels(self, world: World, camera: Camera) -> NDArray[np.int64]:
        """The label of the foremost geom at each pixel, int64 HxW; -1 without a label."""
        view = self._viewport(camera, 1)
        rgb = np.empty((view.height, view.width, 3), np.uint8)
        self._draw(world, camera, view, segment=True)
        self._mj.mjr_readPixels(rgb, None, view, self._context)
        return rgb[::-1, :, 0].astype(np.int64) - 2

    def _viewport(self, camera: Camera, scale: int) -> Any:
        width, height = camera.intrinsics.width * scale, camera.intrinsics.height * scale
        if width > self.width or height > self.height:
            raise ValueError(
                f"A {width}x{height} picture does not fit the {self.width}x{self.height} canvas; open a "
                "larger one."
            )
        return self._mj.MjrRect(0, 0, width, height)

    def _draw(self, world: World, camera: Camera, view: Any, segment: bool) -> None:
        flags = self._mj.mjtRndFlag
        self._gl.make_current()
        self._scene.flags[:] = 0
        self._scene.flags[flags.mjRND_CULL_FACE] = 1
        self._scene.flags[flags.mjRND_SHADOW] = not segment
        self._scene.flags[flags.mjRND_SEGMENT] = self._scene.flags[flags.mjRND_IDCOLOR] = segment
        self._set_camera(camera)
        self._set_lights(world, camera)
        for slot, geom in zip(self._geoms, world.geoms, strict=False):
            self._set_geom(slot, geom)
        self._scene.ngeom = len(world.geoms)
        self._mj.mjr_render(view, self._scene, self._context)

    def _set_camera(self, camera: Camera) -> None:
        k = camera.intrinsics
        for eye in self._cameras:
            eye.pos[:], eye.forward[:], eye.up[:] = (
                camera.position,
                camera.rotation[:, 2],
                -camera.rotation[:, 1],
            )
            eye.frustum_center = (k.width / 2 - k.cx) * NEAR / k.fx
            eye.frustum_width = k.width / 2 * NEAR / k.fx
            eye.frustum_bottom, eye.frustum_top = -(k.height - k.cy) * NEAR / k.fy, k.cy * NEAR / k.fy
            eye.frustum_near, eye.frustum_far, eye.orthographic = NEAR, FAR, 0

    def _set_lights(self, world: World, camera: Camera) -> None:
        # A light that casts shadows loses its ambient part in them, so the ambient is part of a light that
        # does not.
        ambient = next((index for index, light in enumerate(world.lights) if not light.shadow), 0)
        for index, light in enumerate(world.lights):
            slot = self._lights[index]
            slot.id, slot.headlight, slot.castshadow = index, 0, light.shadow
            slot.type = self._mj.mjtLightType.mjLIGHT_DIRECTIONAL
            slot.pos[:], slot.dir[:], slot.attenuation[:] = light.position, light.direction, (1, 0, 0)
            slot.cutoff, slot.exponent, slot.bulbradius, slot.texid = 60, 1, 0.02, -1
            slot.ambient[:] = world.ambient if index == ambient else 0
            slot.diffuse[:], slot.specular[:] = light.rgb, light.specular
        self._scene.nlight = len(world.lights)

    def _set_geom(self, slot: Any, geom: Geom) -> None:
        position, matrix, size = geom.position, geom.rotation, geom.scale
        dataid = -1
        kind = self._types.get(geom.shape, self._mj.mjtGeom.mjGEOM_MESH)
        if geom.shape in self._meshes:
            index, turn, shift = self._meshes[geom.shape]
            stretch = geom.rotation * np.asarray(geom.scale)
            position, matrix, dataid, size = (
                position + stretch @ shift,
                stretch @ turn,
                2 * index,
                (1.0, 1.0, 1.0),
            )
        elif geom.shape == "capsule" or geom.shape == "cylinder":
            size = (geom.scale[0], geom.scale[1], 0.0)  # as in MJCF: radius, half length
        rgba = np.array([*geom.rgb, 1.0], np.float32)
        self._mj.mjv_initGeom(
            slot, kind, np.asarray(size, np.float64), position, np.ascontiguousarray(matrix).ravel(), rgba
        )
        slot.dataid, slot.segid = dataid, geom.label + 1
        slot.objtype, slot.category = self._mj.mjtObj.mjOBJ_GEOM, self._mj.mjtCatBit.mjCAT_STATIC
        slot.specular, slot.shininess, slot.emission, slot.reflectance = (
            geom.specular,
            geom.shininess,
            0.0,
            0.0,
        )
        slot.matid, slot.texid, slot.texuniform = geom.texture, geom.texture, 1
        slot.texrepeat[:] = geom.tile

    def close(self) -> None:
        """Free the OpenGL resources; drawing afterwards is an error."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._context = None

    def __enter__(self) -> Canvas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
