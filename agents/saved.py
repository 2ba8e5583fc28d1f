"""Trained policies on disk, apart from the run that made them: `policy.safetensors` and `policy.json` of its folder.

    act = load("runs/lift-...").actor()  # of the first training seed
    actions = act(obs, rollout, step)

obs [1,O] holds the keys of `saved.observed` in their order, or is a record [1] of them and of its cameras' pictures
(`envs.observations.packed`); rollout and step [1] seed the noise; actions [1,execute,A] lie in [-1,1]; `load` is of
this module.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents import POLICIES
from agents.acting import Act, Asked, actor
from agents.chunks import Statistics
from agents.policies.base import PolicyConfig, Spec
from agents.policies.seeing import Seeing
from agents.trainer import Trained
from wvm_rl.errors import InputError
from wvm_rl.files import atomic
from wvm_rl.model import weights
from wvm_rl.model.config import read

FORMAT = 1
WEIGHTS, SETTINGS = "policy.safetensors", "policy.json"
COND = "cond"


@dataclass
class Saved:
    """Policies of one configuration, one a training seed.

    Attributes:
        policy: their configuration, `agents.policies.seeing.Seeing` for those that see pictures.
        trained: weights, statistics and seeds.
        asked: what each is asked for when acting.
        observed: `keys` of the observation in their order, `cameras` and `size` of the pictures.
    """

    policy: Any
    trained: Trained
    asked: list[Asked]
    observed: dict[str, Any]

    def actor(self, position: int = 0, rows: int = 1, seed: int = 0) -> Act:
        """The policy of the training seed at `position` as a function of observations (`agents.acting.actor`)."""
        cameras, size = len(self.observed["cameras"]), self.observed["size"]
        given = self.policy, self.trained.seed(position), self.trained.statistics
        return actor(*given, rows, self.asked[position], seed, cameras, size)


def save(folder: Path, saved: Saved) -> None:
    """Writes both files, the settings last."""
    inner: PolicyConfig = saved.policy.policy if isinstance(saved.policy, Seeing) else saved.policy
    arrays = {f"policy.{name}": leaf for name, leaf in _named(saved.trained.params).items()}
    arrays |= {f"statistics.{name}": value for name, value in saved.trained.statistics._asdict().items()}
    conds = [each.cond for each in saved.asked if each.cond is not None]
    if conds:
        arrays[COND] = np.stack(conds).astype(np.float32)
    settings = {
        "format": FORMAT,
        "policy": {"name": next(name for name, kind in POLICIES.items() if kind is type(inner)), **asdict(inner)},
        "observed": saved.observed,
        "sizes": {name: len(arrays[f"statistics.{name}_mean"]) for name in ("obs", "action")}
        | {COND: arrays[COND].shape[1] if conds else 0},
        "seeds": list(saved.trained.seeds),
        "guidance": saved.asked[0].guidance,
    }
    with atomic(folder / WEIGHTS) as partial:
        weights.save(partial, arrays)
    with atomic(folder / SETTINGS) as partial:
        partial.write_text(json.dumps(settings, indent=1) + "\n")


def load(folder: Path | str) -> Saved:
    """Reads the policies of a finished run.

    Raises:
        InputError: a file is missing or damaged, or they do not fit each other.
    """
    path = Path(folder).expanduser() / SETTINGS
    try:
        note = json.loads(path.read_text())
        if note["format"] != FORMAT:
            raise ValueError(f"format {note['format']}")
        own, sizes, cameras = dict(note["policy"]), note["sizes"], note["observed"]["cameras"]
        inner = read(POLICIES[own.pop("name")], own, str(path))
        seeds, guidance = tuple(note["seeds"]), float(note["guidance"])
        spec = Spec(sizes["obs"], sizes["action"], sizes[COND], len(cameras))
    except OSError as error:
        raise InputError(
            f"{path} is not there: give the folder of a finished run of wvm_rl.train; one of older code kept no policy"
        ) from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a policy's settings ({error!r}); run its command again") from error
    policy: Any = Seeing(inner) if cameras else inner
    abstract = jax.eval_shape(lambda key: policy.init(key, spec), jax.random.key(0))
    shapes = {f"policy.{name}": (len(seeds), *leaf.shape) for name, leaf in _named(abstract).items()}
    shapes |= {f"statistics.{name}": (spec.obs if name[:3] == "obs" else spec.action,) for name in Statistics._fields}
    shapes |= {COND: (len(seeds), spec.cond)} if spec.cond else {}
    arrays = weights.load(path.with_name(WEIGHTS), shapes)
    leaves = [jnp.asarray(arrays[f"policy.{name}"]) for name in _named(abstract)]
    params = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
    statistics = Statistics(*(arrays[f"statistics.{name}"] for name in Statistics._fields))
    conds = list(arrays[COND]) if spec.cond else [None] * len(seeds)
    asked = [Asked(cond, guidance) for cond in conds]
    return Saved(policy, Trained(params, statistics, seeds), asked, note["observed"])


def _named(tree: Any) -> dict[str, Any]:
    """Path of every leaf, joined by dots -> leaf."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
