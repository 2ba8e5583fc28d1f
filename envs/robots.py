"""Other arms, with the Panda's hand, which the scripted experts know how to use.

Each takes the place of robosuite's own in its registry, which goes by the class's name.
"""

from robosuite.models.robots.manipulators import sawyer_robot, ur5e_robot

HAND = {"right": "PandaGripper"}


class UR5e(ur5e_robot.UR5e):
    """With another hand."""

    @property
    def default_gripper(self) -> dict[str, str]:
        return HAND


class Sawyer(sawyer_robot.Sawyer):
    """With another hand, and mended.

    MuJoCo from 3.3 on refuses meshes of no volume, such as the parts of Sawyer's screen, unless they are shells; and it
    finds the first link in touch with the base, whose friction then holds the first joint.
    """

    def __init__(self, idn: int | str = 0):
        super().__init__(idn)
        for mesh in self.asset.findall("mesh"):
            if "head_" in mesh.get("name", ""):
                mesh.set("inertia", "shell")
        for geom in self.worldbody.iter("geom"):
            if geom.get("name", "").endswith("base_col"):
                geom.set("contype", "0")
                geom.set("conaffinity", "0")

    @property
    def default_gripper(self) -> dict[str, str]:
        return HAND
