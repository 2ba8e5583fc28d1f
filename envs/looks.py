"""Looks: how a scene's pictures may differ while everything in it moves alike.

A camera's name may end in a look, `workspace.moved10`. What a look draws is a function of its name and of the
episode's first state, so the pictures of an episode can be made again from its states. Critics train on `random0`,
`random1`, ...; the others are the benchmark's shifts.
"""

import re
import zlib
from dataclasses import dataclass

import mujoco
import numpy as np

from wvm_rl.errors import InputError


@dataclass(frozen=True)
class Look:
    """What a look changes, and how far.

    moved: degrees that the camera is turned about the point it looks at, and stays above it. near: share that
    its distance, and tenth of a metre that this point, may change. light, texture: strength in [0, 1]. within: `moved`
    is the largest angle, and light and texture each are left alone in a quarter of the episodes.
    """

    moved: float = 0.0
    near: float = 0.0
    light: float = 0.0
    texture: float = 0.0
    within: bool = False


LOOKS = {
    "moved5": Look(moved=5.0),
    "moved10": Look(moved=10.0),
    "moved20": Look(moved=20.0),
    "lit": Look(light=1.0),
    "textured": Look(texture=1.0),
}
RANDOM = Look(moved=12.0, near=0.08, light=1.0, texture=1.0, within=True)
PLAIN = Look()
LOWEST, HIGHEST = -85.0, -2.0  # degrees of elevation, negative looks down


def split(name: str) -> tuple[str, Look]:
    """The camera and the look of a name.

    Raises:
        InputError: no such look.
    """
    camera, _, look = name.partition(".")
    if not look:
        return camera, PLAIN
    if re.fullmatch(r"random\d+", look):
        return camera, RANDOM
    if look not in LOOKS:
        raise InputError(
            f"camera {name}: look {look} is unknown: choose from {', '.join(LOOKS)}, random0, random1, ..."
        )
    return camera, LOOKS[look]


class Drawn:
    """What a look is in one episode.

    Args:
        name: of camera and look.
        first: state [S] in which the episode begins.
    """

    def __init__(self, name: str, first: np.ndarray):
        self._look = look = split(name)[1]
        content = name.encode() + np.ascontiguousarray(first).tobytes()
        rng = np.random.default_rng(zlib.crc32(content))
        angle = look.moved * (np.sqrt(rng.uniform()) if look.within else 1.0)
        way = rng.uniform(0, 2 * np.pi)
        self._turn = angle * np.array([np.cos(way), np.sin(way)])
        self._shift = look.near * rng.uniform(-1, 1, 4)
        keep = rng.uniform(size=2) < 0.25 if look.within else np.zeros(2, bool)
        self._light = 0.0 if keep[0] else look.light
        self._texture = 0.0 if keep[1] else look.texture
        self._bright, self._ambient = rng.uniform(-0.6, 0.6), rng.uniform(-0.15, 0.25)
        self._colour, self._aim = rng.uniform(-0.15, 0.15, 3), rng.normal(0, 0.5, 3)
        self._seed = int(rng.integers(2**31))
        self._paint: tuple[mujoco.MjModel, dict[int, tuple[np.ndarray, bool]]] | None = None

    def aim(self, camera: mujoco.MjvCamera) -> None:
        """Turns a camera that stands as its name without the look says."""
        if not (self._look.moved or self._look.near):
            return
        if camera.type == mujoco.mjtCamera.mjCAMERA_FIXED:
            raise InputError("only the workspace camera can be moved")
        camera.azimuth += self._turn[0] / np.cos(np.radians(camera.elevation))
        upward = self._turn[1] if LOWEST < camera.elevation + self._turn[1] < HIGHEST else -self._turn[1]
        camera.elevation += upward
        camera.distance *= 1.0 + self._shift[0]
        camera.lookat[:] += 0.1 * self._shift[1:]

    def paint(self, scene: mujoco.MjvScene, model: mujoco.MjModel) -> None:
        """Changes lights and colours of a scene that was just filled."""
        if self._light:
            for light in scene.lights[: scene.nlight]:
                light.diffuse[:] = np.clip(light.diffuse * (1 + self._light * (self._bright + self._colour)), 0, 1)
                light.ambient[:] = np.clip(light.ambient + self._light * self._ambient, 0, 1)
                if not light.headlight:
                    aim = light.dir + self._light * self._aim
                    light.dir[:] = aim / np.linalg.norm(aim)
        if self._texture:
            if self._paint is None or self._paint[0] is not model:
                self._paint = model, self._paints(model)
            paints = self._paint[1]
            for geom in scene.geoms[: scene.ngeom]:
                if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and (found := paints.get(geom.objid)):
                    colour, bare = found
                    geom.rgba[:3] = colour if bare else np.clip(geom.rgba[:3] * colour, 0, 1)
                    if bare:
                        geom.matid = -1

    def _paints(self, model: mujoco.MjModel) -> dict[int, tuple[np.ndarray, bool]]:
        """Geom -> colour, and whether it takes the place of the texture.

        What stands still gets any colour or a tint of its texture, alike for geoms of one material; the robot is
        tinted, and so, little, are the objects, whose colours instructions name.
        """
        rng, paints = np.random.default_rng(self._seed), {}
        shared: dict[tuple[int, int], tuple[np.ndarray, bool]] = {}
        for geom in range(model.ngeom):
            body = model.geom_bodyid[geom]
            root = model.body_rootid[body]
            still = model.body_weldid[body] == 0
            free = model.body_jntnum[root] and model.jnt_type[model.body_jntadr[root]] == mujoco.mjtJoint.mjJNT_FREE
            key = (int(model.geom_matid[geom]), int(body) if still else -1 - int(root))
            if key not in shared:
                if still:
                    bare = rng.uniform() < 0.5
                    shared[key] = rng.uniform(0.1, 0.95, 3) if bare else rng.uniform(0.5, 1.5, 3), bool(bare)
                else:
                    spread = 0.12 if free else 0.3
                    shared[key] = rng.uniform(1 - spread, 1 + spread, 3), False
            paints[geom] = shared[key]
        return paints
