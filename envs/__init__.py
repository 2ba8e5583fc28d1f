"""Simulated tasks: experts, collection, rollouts. Imports no JAX, and OpenGL only when a camera draws."""

import os

os.environ["MUJOCO_GL"] = "disable"  # `import mujoco` must not look for OpenGL; `envs.camera` opens EGL by itself
