"""A camera on a MuJoCo scene: fast pictures without a display, one OpenGL context a process."""

import atexit
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import mujoco
import numpy as np

from envs import looks
from envs.meshes import coarse
from envs.tasks import CONTROL_FREQUENCY
from wvm_rl.errors import InputError

WORKSPACE = "workspace"  # the critic's third-person camera; other names are cameras of the model
SUPERSAMPLING = 2  # pictures are drawn this much larger and averaged: cheaper than OpenGL's multisampling on a CPU
VISUAL_GROUP = 1  # robosuite: geom group 0 collides, group 1 is seen
UNSEEN = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_HAZE,
    mujoco.mjtRndFlag.mjRND_FOG,
)
UPLOADED = ("mesh_", "tex_", "mat_", "hfield_", "skin_")  # model arrays that an OpenGL context holds
INSTALL = "install EGL (Debian, Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri libgles2)"


@dataclass(frozen=True)
class View:
    """Pose of a free camera that looks at `lookat` from `distance`."""

    lookat: tuple[float, float, float]  # m, world frame
    distance: float  # m
    azimuth: float  # degrees, 180 looks at the robot
    elevation: float  # degrees, negative looks down


TABLE = View((0.0, 0.0, 0.915), 0.62, 155.0, -20.0)
VIEWS = {  # a body that tells the scene -> how it is seen
    "bin1": View((0.11, 0.0, 0.91), 1.13, 142.0, -34.0),
    "Door_main": View((-0.12, -0.22, 1.1), 0.85, 215.0, -20.0),
}


class Camera:
    """Draws [size, size, 3] u8 pictures of any model: visual geoms only, no shadows, reflections or skybox.

    Args:
        name: "workspace", or a camera of the model such as "agentview", and perhaps a look, "workspace.moved10".
        size: pixels a side.
    """

    def __init__(self, name: str = WORKSPACE, size: int = 64):
        if not 8 <= size <= 1024:
            raise InputError(f"size={size} must lie in [8, 1024] pixels")
        self.name, self.size = name, size
        self._place, self._plain = looks.split(name)[0], looks.split(name)[1] == looks.PLAIN
        self._look: looks.Drawn | None = None
        self._model: mujoco.MjModel | None = None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[VISUAL_GROUP] = 1
        self._option.sitegroup[:] = 0

    def begin(self, first: np.ndarray) -> None:
        """Draws the camera's look for the episode that begins in state `first` [S]; without a look it does nothing."""
        if not self._plain:
            self._look, self._model = looks.Drawn(self.name, first), None

    def __call__(self, model: mujoco.MjModel, state: np.ndarray) -> np.ndarray:
        """Draws a simulator state [S] (time, positions, velocities): [size, size, 3] u8, a function of the two alone.

        With a look it also depends on the episode, see `begin`. A live simulation's `data` will not do: its poses are
        one physics substep older than its state.

        Raises:
            InputError: no OpenGL, no such camera, or a state of another model.
        """
        if self._look is None and not self._plain:
            raise ValueError(f"camera {self.name}: `begin` comes first")
        side = SUPERSAMPLING * self.size
        context = _context(model, side)
        fresh = model is not self._model
        if fresh:
            self._enter(model)
        data = self._data
        if np.shape(state) != (1 + model.nq + model.nv,):
            raise InputError(f"a state of shape {np.shape(state)} does not fit the model's [{1 + model.nq + model.nv}]")
        data.qpos[:] = state[1 : 1 + model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mjv_updateScene(
            model, data, self._option, None, self._pose, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        if self._look is not None:
            self._look.paint(self._scene, model)
        viewport = mujoco.MjrRect(0, 0, side, side)
        pixels = np.empty((side, side, 3), np.uint8)
        mujoco.mjr_render(viewport, self._scene, context)
        mujoco.mjr_readPixels(pixels, None, viewport, context)
        if fresh and pixels.min() == pixels.max():
            raise InputError(f"camera {self.name} sees one colour only: the OpenGL driver is broken, {INSTALL}")
        return _shrunk(pixels[::-1])

    def _enter(self, model: mujoco.MjModel) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._scene = mujoco.MjvScene(model, maxgeom=2 * model.ngeom + 100)
        for flag in UNSEEN:
            self._scene.flags[flag] = False
        self._pose = pose(model, self._place)
        if self._look is not None:
            self._look.aim(self._pose)


def pose(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    """Where camera `name` stands in a model; "workspace" frames the table or what VIEWS says."""
    camera = mujoco.MjvCamera()
    if name == WORKSPACE:
        marked = [view for body, view in VIEWS.items() if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body) >= 0]
        view = marked[0] if marked else TABLE
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = view.lookat
        camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation
        return camera
    names = [model.camera(number).name for number in range(model.ncam)]
    if name not in names:
        raise InputError(f"camera {name} is unknown: choose from {', '.join([WORKSPACE, *names])}")
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = names.index(name)
    return camera


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Averages blocks of SUPERSAMPLING x SUPERSAMPLING pixels, rounding half up."""
    block = SUPERSAMPLING
    sums = np.full((pixels.shape[0] // block, pixels.shape[1] // block, 3), block * block // 2, np.uint16)
    for row, column in np.ndindex(block, block):  # whole pictures at a time: several times as fast as `sum` over axes
        sums += pixels[row::block, column::block]
    return (sums // (block * block)).astype(np.uint8)


@dataclass
class _Graphics:
    """This process's one OpenGL context and what has been uploaded to it."""

    window: Any = None  # the OpenGL context
    context: mujoco.MjrContext | None = None
    digest: bytes = b""  # of the arrays in `context`
    digests: WeakKeyDictionary[mujoco.MjModel, bytes] = field(default_factory=WeakKeyDictionary)  # 0.1 s a model
    side: int = 0  # pixels of the frame buffer

    def close(self) -> None:
        """Frees all, before the interpreter takes down the libraries underneath."""
        if self.context is not None:
            self.context.free()
        if self.window is not None:
            self.window.free()
        self.window = self.context = None


_GRAPHICS = _Graphics()


def _context(model: mujoco.MjModel, side: int) -> mujoco.MjrContext:
    """Returns the context with the model's meshes and textures, uploading them only if they have changed.

    A hard reset builds a new model, but usually (Lift samples its cube's size) from the same meshes and textures:
    those of the context are then used on; everything else a picture needs lies in the scene.
    """
    graphics = _GRAPHICS
    if graphics.window is None:
        graphics.window = _window()
        atexit.register(graphics.close)
    graphics.window.make_current()
    if (digest := graphics.digests.get(model)) is None:
        digest = graphics.digests[model] = _digest(model)
    if digest != graphics.digest:
        if graphics.context is not None:
            graphics.context.free()
        graphics.context, graphics.digest = None, b""  # in case the upload fails
        graphics.context, graphics.digest = _uploaded(model), digest
        graphics.side = 0
    if side != graphics.side:
        mujoco.mjr_resizeOffscreen(side, side, graphics.context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, graphics.context)
        graphics.side = side
    return graphics.context


def _digest(model: mujoco.MjModel) -> bytes:
    """Fingerprint of all that an upload depends on: meshes, textures, materials and planes (drawn from lists)."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(dir(model)):
        if name.startswith(UPLOADED):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(getattr(model, name)).tobytes())
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    digest.update(np.flatnonzero(planes).tobytes())
    digest.update(model.geom_size[planes].tobytes() + model.geom_matid[planes].tobytes())
    return digest.digest()


def _uploaded(model: mujoco.MjModel) -> mujoco.MjrContext:
    drawn = coarse(model)
    drawn.vis.quality.offsamples = 0
    drawn.vis.quality.shadowsize = 0
    drawn.vis.global_.offwidth = drawn.vis.global_.offheight = 64
    context = mujoco.MjrContext(drawn, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    _check(context)
    return context


def _check(context: mujoco.MjrContext) -> None:
    """Paints two known colours, one above the other, and reads them back: broken drivers give garbage unasked."""
    upper, lower = (255, 0, 51), (0, 255, 102)
    for bottom, colour in ((32, upper), (0, lower)):
        mujoco.mjr_rectangle(mujoco.MjrRect(0, bottom, 64, 32), *(part / 255 for part in colour), 1.0)
    pixels = np.zeros((64, 64, 3), np.uint8)
    mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, 64, 64), context)
    expected = np.empty_like(pixels)
    expected[:32], expected[32:] = lower, upper
    if np.abs(pixels.astype(int) - expected).max() > 1:
        raise InputError(f"OpenGL draws garbage: {INSTALL}, and unset MUJOCO_GL")


def _window():
    """Opens an OpenGL context without a display; an InputError names the packages that are missing."""
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    try:
        from mujoco.egl import GLContext  # here and not above: jobs without pictures need no OpenGL

        return GLContext(64, 64)
    except Exception as error:  # each missing library fails in its own way
        raise InputError(f"no OpenGL to render with ({type(error).__name__}: {error}): {INSTALL}") from error


def frame_interval(fps: int) -> int:
    """Control steps from one frame to the next at `fps` frames a second, which must divide the control frequency."""
    if fps < 1 or CONTROL_FREQUENCY % fps:
        rates = [rate for rate in range(1, CONTROL_FREQUENCY + 1) if CONTROL_FREQUENCY % rate == 0]
        raise InputError(f"fps={fps} must divide the control frequency of {CONTROL_FREQUENCY} Hz: choose from {rates}")
    return CONTROL_FREQUENCY // fps
