"""What several tests share: simulation is slow, so episodes are collected once a session."""

import ctypes.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.collect import CollectConfig, collect
from envs.recipes import RECIPES
from envs.tasks import TASKS

LONG = ["test_pretrain", "test_train", "test_model_initial", "test_sharding", "test_footage", "test_experts"]
LONG += ["test_model_critic", "test_sweep", "test_study", "test_evaluate", "test_file_data", "test_regressors"]
QUICKLY = "--xla_cpu_use_fusion_emitters=false"  # compiles in two thirds of the time
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}  # as `compile_quickly`, in other processes
FOLDER = pytest.StashKey[str]()
DATA = "WVM_RL_TEST_DATA"
needs_egl = pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="libEGL is not installed")


def pytest_configure(config: pytest.Config) -> None:
    """What one test process has compiled or collected, the others of this session need not; all compile quickly."""
    if not hasattr(config, "workerinput"):
        config.stash[FOLDER] = folder = tempfile.mkdtemp(prefix="wvm_rl-tests-")
        os.environ[DATA] = str(Path(folder) / "data")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(folder) / "compiled"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY}"


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(FOLDER, None):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long go first, so that no process waits for another's at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def lift_config(root: Path, **settings) -> CollectConfig:
    """Two short expert episodes of lift; without frames where there is no OpenGL."""
    fps = 4 if ctypes.util.find_library("EGL") else 0
    settings = {"recipe": RECIPES["expert"](), "episodes": 2, "fps": fps, "workers": 1} | settings
    return CollectConfig(env=TASKS["lift"](), root=str(root), **settings)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data folder of all test processes. Read only, but for what collects or labels."""
    return Path(os.environ[DATA])


@pytest.fixture(scope="session")
def lift_dataset(shared: Path) -> Path:
    """Path of two expert episodes of lift. Read only: copy it to change it."""
    return collect(lift_config(shared))


@pytest.fixture(scope="module")
def compile_quickly() -> Iterator[None]:
    """For tests whose time is mostly compilation: do it badly."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def hydra_ready() -> Iterator[None]:
    """For tests that compose settings as a command does."""
    from hydra import initialize

    from wvm_rl import cli
    from wvm_rl.config import GROUPS

    cli.register(GROUPS)
    with initialize(version_base="1.3", config_path=None):
        yield
