"""Trains a World Value Model on expert episodes: `python -m wvm_rl.pretrain wvm=tiny`.

Stages, each resumable and kept under the data folder by what shapes it: expert episodes, scripted ones or of files
(`data=file`) -> video VAE -> pool of encoded windows -> the model -> a critic's folder with its card.
"""

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from envs.cache import data_folder
from wvm_rl import cli
from wvm_rl.card import write_card
from wvm_rl.errors import InputError
from wvm_rl.files import writable
from wvm_rl.footage import FOOTAGE, Footage
from wvm_rl.model.critic import Critic
from wvm_rl.model.critic_folder import check_vacant, holds_critic
from wvm_rl.model.presets import PRESETS
from wvm_rl.model.settings import StagesConfig, checked
from wvm_rl.model.stages import Stages, train
from wvm_rl.model.weights import MANTISSA
from wvm_rl.sharding import HostsConfig, MeshConfig, agreed, is_first


@dataclass
class PretrainConfig(StagesConfig):
    """Pretraining of a World Value Model."""

    defaults: list[Any] = field(default_factory=lambda: [{"wvm": "tiny"}, {"data": "scripted"}, "_self_"])
    data: Any = MISSING
    hosts: HostsConfig = field(default_factory=HostsConfig)
    until: str = "wvm"  # pool: stops when the windows are encoded, which one host does | wvm: trains and exports
    mantissa: int | None = MANTISSA  # bits that exported weights keep, at half precision; null: as trained
    out: str | None = None  # folder of the critic; null: `critics/<preset>-<fingerprint>` in the data folder

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until not in ("pool", "wvm"):
            raise InputError(f"until={self.until}: choose pool or wvm")
        if self.mantissa is not None and not 1 <= self.mantissa <= MANTISSA:
            raise InputError(f"mantissa={self.mantissa}: choose 1 to {MANTISSA}, or null for weights as trained")


def main(config: PretrainConfig) -> None:
    """Trains and exports; run again after a kill to go on."""
    start = time.monotonic()
    if config.until == "pool":
        config = replace(config, mesh=MeshConfig())  # one host and device do this part
    else:
        config.hosts.start()
    footage: Footage = config.data
    checked(config, footage.announced(config.wvm))
    if config.out:
        check_vacant(out := Path(config.out).expanduser())
        writable(out.parent)
    films = footage.films(config.wvm)
    data = {
        "films": f"{len(films.training)} for training, {len(films.held_out)} held out",
        **footage.described(),
        "frames": sum(len(film.frames) for film in films.training),
        "instructions": "; ".join(films.instructions),
        "windows": ", ".join(f"{name} {value:g}" for name, value in asdict(config.windows).items()),
        "fingerprint": films.fingerprint,
    }
    print(f"films: {data['films']}; {data['frames']} frames")
    stages = Stages(config, films, data_folder(footage.root) / "pretrain")
    if config.until == "pool":
        stages.pools(*stages.vae())
        return
    if not agreed(not config.out or not holds_critic(out) or stages.trained):
        raise InputError(f"out={out} holds a critic, perhaps another one: choose another folder, or move it")
    critic, scores = train(stages)
    if not is_first():
        return
    if config.mantissa is not None:
        critic = critic.halved(config.mantissa)
    name = f"{critic.config.preset}-{critic.fingerprint[:8]}"
    out = Path(config.out).expanduser() if config.out else data_folder(footage.root) / "critics" / name
    if not holds_critic(out):
        begun = config.pretrained.described(config.wvm)
        critic.card = write_card(critic, begun, config.seed, data, scores, stages.commits(), time.monotonic() - start)
        critic.save(out)
    elif Critic.load(out, told=False).fingerprint != critic.fingerprint:
        raise InputError(f"out={out} holds another critic: choose another folder, or move that one")
    print(f"critic {critic.fingerprint[:12]} in {out}")


if __name__ == "__main__":
    cli.run(main, PretrainConfig, {"wvm": PRESETS, "data": FOOTAGE})
