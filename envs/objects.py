"""Scenes of robosuite with other things in them, registered under their classes' names."""

from robosuite.environments.manipulation.lift import Lift
from robosuite.models.objects import LemonObject
from robosuite.models.tasks import ManipulationTask


class LiftLemon(Lift):
    """A lemon lies where the cube would."""

    def _load_model(self):
        super()._load_model()
        self.cube = LemonObject(name="cube")  # by this name everything else knows it
        self.placement_initializer.reset()
        self.placement_initializer.add_objects(self.cube)
        robots = [robot.robot_model for robot in self.robots]
        self.model = ManipulationTask(self.model.mujoco_arena, robots, self.cube)
