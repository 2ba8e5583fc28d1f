"""What in the critic matters: the paper's Table 4, at the size of `tiny`.

    python -m experiments.ablations machine=mine                     # every variant, 3 seeds of the model's training
    python -m experiments.ablations machine=mine variants=[full,p0] seeds=1
    python -m experiments.ablations run=false                        # the tables of what is finished

A cell trains one variant with one seed and scores it (`experiments.cells`); VAE and windows are shared where a variant
leaves them alone. Finished cells are kept and committed, interrupted ones go on. Means and spreads over trainings, and
differences from the recipe in pairs of trajectories, of all finished cells, go to `experiments/results/ablations.md`,
all numbers to `ablations.json` beside it; other budgets have files of their own.

Cells of another machine (`machine=<name>`) are other trainings, each beside the recipe of its own machine and seed.
"""

from dataclasses import dataclass, field
from itertools import product

from experiments.cells import (
    PAIRED,
    SCORES,
    Cell,
    Cells,
    averaged,
    check,
    differences,
    named,
    named_machine,
    publish,
    titles,
    trainings,
)
from wvm_rl import cli
from wvm_rl.errors import InputError
from wvm_rl.model.training import FitConfig
from wvm_rl.scoreboard import markdown_table

CELLS = Cells("ablations")
FULL = "full"  # beside which the others stand
HALF, OF_HALF = "half", ("video_first", "video_frozen")  # with as many updates of the value stream
ABOUT = (
    "Differences of trainings of the same machine and seed on the same episodes: mean, its 95 % interval over "
    "trajectories, which says nothing of other trainings, and ± the standard deviation of the trainings."
)
SEED = 7000  # of the episodes that cells are scored on: not the benchmark's, as choices are made on them
VARIANTS = {  # name -> what it is, and overrides of the recipe; the later one wins
    FULL: ("the recipe", ""),
    "no_video_loss": ("value loss alone", "loss.video=0"),
    "half": ("half of the updates: what the next two give the value stream", "model.steps={half}"),
    "video_first": ("half of the updates on the video loss alone, then both", "video_steps={half} model.steps={half}"),
    "video_frozen": (
        "half of the updates on the video loss alone, then video stream and text stand still",
        "video_steps={half} model.steps={half} frozen=true",
    ),
    "p0": ("the true prefix always", "loss.random_prefix=0"),
    "p1": ("a random prefix always", "loss.random_prefix=1"),
    "draws8": ("eight draws of noise a window (not in the paper)", "loss.draws=8"),
    "hl_gaussian": ("histogram head", "wvm.value.head=hl_gaussian"),
    "regression": ("scalar head", "wvm.value.head=regression"),
    "no_rewind": ("rising windows only, but for the VAE's progress head", "windows.rewind=0"),
    "no_rewind_at_all": (
        "rising windows only, and a VAE that learns from pictures alone",
        "windows.rewind=0 compression.progress=0",
    ),
    "paper_windows": ("the paper's shares of rewound and still windows", "windows.rewind=0.5 windows.plateau=0.1"),
    "no_progress": ("a VAE that learns from pictures alone", "compression.progress=0"),
    "fps2": ("2 frames a second", "wvm.fps=2 data.fps=10"),
    "fps4": ("4 frames a second, the nearest ones of ten", "wvm.fps=4 data.fps=10"),
    "fps8": ("8 frames a second, the nearest ones of ten", "wvm.fps=8 data.fps=10"),
    "fps10": ("10 frames a second", "wvm.fps=10 data.fps=10"),
    "no_text": ("no instruction", "data.text=false"),
    "first_frame": ("the episode's first frame in sight (not in the paper)", "wvm.first_frame=true"),
    "size64": ("64x64 pixels in place of 96x96", "wvm.size=64"),
    "size128": ("128x128 pixels", "wvm.size=128"),
    "layers3": ("3 layers in place of 6, in both streams", "wvm.transformer.num_layers=3"),
    "layers12": ("12 layers", "wvm.transformer.num_layers=12"),
}


@dataclass
class AblationsConfig:
    """Which cells to run, and how long each trains."""

    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    seeds: int = 3  # of the model's training
    tasks: list[str] = field(default_factory=lambda: ["lift", "can", "stack"])
    vae_steps: int = 1200  # updates of the VAE, which most variants share
    pool: int = 24_000  # encoded windows, likewise
    steps: int = 1200  # updates of the model
    batch: int = 32  # windows an update
    episodes: int = 36  # a task, on which a cell is scored
    machine: str | None = None  # name of this machine, for its cells: those of others are not taken for its own
    run: bool = True  # false: only the table, from the finished cells of all machines

    def __post_init__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise InputError(f"variants has unknown {', '.join(unknown)}: choose from {', '.join(VARIANTS)}")
        check(self, seeds=1, steps=2 * (FitConfig.warmup + 1), episodes=4)  # a variant trains for half of the steps


def settings(config: AblationsConfig, variant: str, seed: int) -> tuple[list[str], list[str]]:
    """Settings of a cell's training and of its scoring."""
    tasks = ",".join(config.tasks)
    changed = VARIANTS[variant][1].format(half=config.steps // 2).split()
    base = [f"vae.steps={config.vae_steps}", f"pool={config.pool}", f"model.steps={config.steps}"]
    base.append(f"model.batch={config.batch}")
    base = [one for one in base if one.partition("=")[0] not in {change.partition("=")[0] for change in changed}]
    return [f"data.tasks=[{tasks}]", *base, *changed, f"model_seed={seed}"], [
        f"tasks=[{tasks}]",
        f"seed={SEED}",
        f"episodes={config.episodes}",
    ]


Training = tuple[str, int]  # machine and seed
Found = dict[str, dict[Training, Cell]]  # variant -> its trainings


def main(config: AblationsConfig) -> None:
    """Trains and scores what is missing, seed by seed; writes the tables after every cell."""
    keys = [(variant, seed) for seed in range(config.seeds) for variant in config.variants] if config.run else []
    for number, (variant, seed) in enumerate(keys):
        print(f"### {number + 1} of {len(keys)}: {variant}, seed {seed}", flush=True)
        CELLS(named_machine(config), f"{variant}-{seed}", *settings(config, variant, seed))
        report(config)
    print(report(config))


def finished(config: AblationsConfig) -> Found:
    """All finished cells of this budget on all machines, also those that are not asked for."""
    found: Found = {}
    for variant in VARIANTS:
        for machine, seed in product(CELLS.machines, CELLS.seeds(variant)):
            if cell := CELLS(machine, f"{variant}-{seed}", *settings(config, variant, seed), run=False):
                found.setdefault(variant, {})[machine, seed] = cell
    return found


def report(config: AblationsConfig) -> str:
    """Writes tables and numbers of all that is finished, asked for or not; returns the tables."""
    found = finished(config)
    if not found:
        raise InputError(f"no finished cell of this budget in {CELLS.results / CELLS.name}: run some with run=true")
    budget = (
        f"tasks {', '.join(config.tasks)}; {config.vae_steps} updates of the VAE, {config.pool} windows, "
        f"{config.steps} updates of {config.batch} windows of the model; scored on {config.episodes} episodes a task"
    )
    found_tables = tables(found)
    machines = ", ".join(sorted({machine for cells in found.values() for machine, _ in cells}))
    text = f"{found_tables}\nMachines: {machines}; {budget}."
    commits = {cell["commit"] for cells in found.values() for cell in cells.values()}
    name = named(CELLS.name, config, "tasks", "vae_steps", "pool", "steps", "batch", "episodes")
    variants = {
        variant: {f"{machine}-{seed}": cell for (machine, seed), cell in cells.items()}
        for variant, cells in found.items()
    }
    publish(CELLS.results / name, "Ablations", text, {"budget": budget, "variants": variants}, commits)
    return found_tables


def tables(found: Found) -> str:
    """Markdown: a line a variant, mean over its trainings and their spread; then what differs from FULL and HALF."""
    rows = [["variant", "what", "trainings", *titles(SCORES)]]
    for variant, cells in found.items():
        made = trainings(cells.values())
        rows.append([variant, VARIANTS[variant][0], str(len(made)), *averaged(made)])
    parts: list[str] = []
    for reference, variants in {FULL: [variant for variant in found if variant != FULL], HALF: OF_HALF}.items():
        base, gaps = found.get(reference, {}), [[f"minus {reference}", "trainings", *titles(PAIRED)]]
        for variant in variants:
            cells = found.get(variant, {})
            both = [(cells[each], base[each]) for each in cells if each in base]
            pairs = list({tuple(cell["critic"] for cell in pair): pair for pair in both}.values())
            if pairs:
                gaps.append([variant, str(len(pairs)), *differences(pairs)])
        parts += [markdown_table(gaps)] if len(gaps) > 1 else []
    means = f"{markdown_table(rows)}\nMeans of the trainings ± their standard deviation.\n"
    return "\n".join([means, f"{ABOUT}\n", *parts] if parts else [means])


if __name__ == "__main__":
    cli.run(main, AblationsConfig, {})
