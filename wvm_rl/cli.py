"""Hydra entry points: structured configs in, one-line errors out."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.conf import HelpConf, HydraConf, JobConf, RunDir, SweepDir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from wvm_rl import runs
from wvm_rl.errors import InputError

Groups = dict[str, dict[str, type]]


def digest(*, _root_: Any) -> str:
    """Resolver `digest`: names what a job's result depends on (`wvm_rl.runs.digest`)."""
    settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "hydra"]))
    return runs.digest(settings)


def summary(choice: type) -> str:
    """First sentence of a config's docstring: its line in `--help`."""
    return (choice.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _help(name: str, groups: Groups) -> str:
    lines = [f"usage: python -m {name} [group=choice] [key=value] [-m for a sweep]", ""]
    for group, choices in groups.items():
        lines += [f"{group}="] + [f"  {choice:24s} {summary(config)}" for choice, config in choices.items()] + [""]
    lines += ["All keys with their defaults:", "", "$CONFIG"]
    return "\n".join(lines)


def register(groups: Groups) -> ConfigStore:
    """Makes the choices of the groups known to Hydra."""
    store = ConfigStore.instance()
    for group, choices in groups.items():
        for choice, node in choices.items():
            try:
                store.store(group=group, name=choice, node=node)
            except OmegaConfBaseException as error:
                raise InputError(f"{group}={choice}: {node.__name__} has a field that Hydra cannot hold") from error
    return store


def run(main: Callable[..., Any], config: type, groups: Groups, run_dir: str | None = None) -> None:
    """Runs `main(config)`, or `main(config, folder)` for a job with a run folder, as the command line says.

    Args:
        main: takes an instance of `config`, checked by its `__post_init__`.
        config: dataclass of the job, with a Hydra `defaults` list naming a choice of every group.
        groups: the choices of each config group, as dataclasses.
        run_dir: the run folder, may hold Hydra's interpolations; None for commands that have none.
    """
    module = sys.modules["__main__"].__spec__
    name = module.name if module else Path(sys.argv[0]).name
    try:
        store = register(groups)
    except InputError as error:
        _refuse(error)
    store.store(name="job", node=config)
    silent = ("hydra_logging", "job_logging")  # else Hydra prints every library's log
    defaults: list[Any] = [entry for entry in HydraConf().defaults if not set(entry) & set(silent)]
    defaults += [{group: "none"} for group in silent]
    settings = HydraConf(
        defaults=defaults,
        run=RunDir(run_dir or "."),
        sweep=SweepDir(dir=str(Path(run_dir or "./.").parent), subdir=Path(run_dir or ".").name),
        job=JobConf(name=name, chdir=False),
        help=HelpConf(app_name=name, header="", footer="", template=_help(name, groups)),
        output_subdir=None,
    )
    store.store(group="hydra", name="config", node=settings, provider="wvm_rl")
    sys.argv[1:] = [_addable(argument, config) for argument in sys.argv[1:]]
    try:
        _check_groups(sys.argv[1:], groups)
    except InputError as error:
        _refuse(error)
    started = False

    def job(composed: Any) -> None:
        nonlocal started
        started = True
        folder = Path(HydraConfig.get().runtime.output_dir)
        many = HydraConfig.get().mode == RunMode.MULTIRUN
        if many:
            print(f"# job {HydraConfig.get().job.num}: {' '.join(HydraConfig.get().overrides.task)}", flush=True)
        if multiprocessing.get_start_method(allow_none=True) == "loky":  # of the joblib launcher: unknown to children
            multiprocessing.set_start_method("spawn", force=True)
        try:
            check_known(composed)
            arguments = OmegaConf.to_object(composed)
            main(arguments, folder) if run_dir else main(arguments)
        except (InputError, OmegaConfBaseException) as error:
            cause = error.__cause__ if isinstance(error.__cause__, InputError) else error
            if not many:
                _refuse(cause)
            print(f"# job {HydraConfig.get().job.num} is refused: {_line(cause)}", flush=True)
            raise InputError(_line(cause)) from None  # Hydra goes on with the others, and raises the first at the end
        except Exception:
            if many:
                traceback.print_exc()  # Hydra forgets it if it is not the first
            raise
        finally:
            if run_dir:
                _remove_empty(folder, parents=not many)  # Hydra made it before the input was looked at

    OmegaConf.register_new_resolver("digest", digest, replace=True)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through to be shown below
    try:
        hydra.main(version_base="1.3", config_path=None, config_name="job")(job)()
    except (HydraException, OmegaConfBaseException, InputError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _unheard():
            sys.exit(1)
        if started:
            raise
        _refuse(InputError(f"the run folder {error.filename} cannot be made: {error.strerror}"))
    except RuntimeError as error:
        if started or "srun" not in str(error):
            raise
        _refuse(error)  # submitit's, where there is no Slurm


def check_overrides(overrides: Sequence[str], groups: Groups) -> None:
    """Raises InputError for overrides of one job that no job can have: groups of nothing, and Hydra's own settings."""
    _check_groups(overrides, groups)
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].replace("/", ".").split(".")[0] == "hydra":
            raise InputError(f"{override}: Hydra's own settings are of a command, not of its jobs")


def _check_groups(overrides: Sequence[str], groups: Groups) -> None:
    for override in overrides:
        group, _, choices = override.lstrip("+").partition("=")
        if group in groups and "null" in [choice.strip().lower() for choice in choices.split(",")]:
            raise InputError(f"{override}: a group is never null, choose from {', '.join(groups[group])}")


def check_known(composed: Any) -> None:
    """Raises InputError if a composed configuration has keys, added with `+`, that nothing reads."""
    if unknown := next(_unknown(composed), None):
        raise InputError(f"unknown key '{unknown}': --help shows all")


def _unheard() -> bool:
    """Whether nobody reads standard output any more, as after `| head`; then nothing more is written there."""
    try:
        print(end=" ", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _remove_empty(folder: Path, parents: bool) -> None:
    """Removes a folder, and if `parents` those above it, below the working folder, as far as they are empty."""
    here, folder = Path.cwd(), folder.absolute()
    with suppress(OSError):  # it is not empty, or gone
        folder.rmdir()
        while parents and (folder := folder.parent) != here and folder.is_relative_to(here):
            folder.rmdir()


def _addable(argument: str, config: type) -> str:
    """An argument with the `++` that Hydra asks of new keys, where the job takes any: `predictions.mine=...`."""
    name, dot, _ = argument.partition(".")
    opened = {each.name for each in fields(config) if each.default_factory is dict}
    return f"++{argument}" if dot and name in opened else argument


def _unknown(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys that were added with `+` to settings that have no such key."""
    kind = OmegaConf.get_type(node)
    known = {each.name for each in fields(kind)} if is_dataclass(kind) else set(node)
    for key in node:
        if key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            yield from _unknown(node[key], f"{prefix}{key}.")


def _refuse(error: BaseException) -> NoReturn:
    """Prints a bad input as one line and exits with status 2."""
    print(f"error: {_line(error)}", file=sys.stderr)
    sys.exit(2)


def _line(error: BaseException) -> str:
    """What is wrong with the input, in one line, with the keys to choose from if a key was unknown."""
    message = str(error).split("Config search path")[0]
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.parent_node is not None:
        keys = [str(key) for key in cause.parent_node if key not in ("defaults", "hydra")]
        choices = f"choose one of {', '.join(keys)}" if keys else f"write it as ++{cause.full_key}=..."
        message = f"unknown key '{cause.full_key}': {choices}"
    elif isinstance(error, MissingMandatoryValue):
        message = f"{error.full_key} has no default: give {error.full_key}=..."
    elif isinstance(cause, OmegaConfBaseException):
        message += f": {str(cause).splitlines()[0]}"
    return " ".join(message.split())
