"""What critics learn from: films of scripted experts and of files."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from tests.model_toy import small, stages
from tests.synthetic import dataset, episode
from wvm_rl.data.episodes import Dataset
from wvm_rl.errors import InputError
from wvm_rl.footage import FileFilms, ScriptedFilms, corpus
from wvm_rl.label import label
from wvm_rl.model.critic import Critic
from wvm_rl.model.reading import Reading
from wvm_rl.pretrain import PretrainConfig, main
from wvm_rl.values.wvm import WvmConfig


def test_rates_that_the_critic_cannot_read_are_refused_before_collecting():
    for fps in (0, 2):
        with pytest.raises(InputError, match=f"data.fps={fps}: the critic reads 5 frames"):
            ScriptedFilms(fps=fps).plans(5.0, 96)
    assert [plan.fps for plan in ScriptedFilms(tasks=["lift"]).plans(5.0, 96)] == [5]


def test_films_of_looks_rates_and_no_instruction(tmp_path):
    episodes = [replace(episode(index, 80 + index), quality="expert") for index in range(3)]
    for each in episodes:
        each.frames["workspace.random0"] = each.frames["workspace.moved10"] = 255 - each.frames["workspace"]
    data = dataset(tmp_path / "d.hdf5", episodes)
    seen = ["workspace", "workspace.random0"]  # another look in the file is not learned from
    films = corpus([data], seen, 4.0, 16, 1)
    assert len(films.training) == 4 and len(films.held_out) == 2 and films.camera == "workspace"
    assert films.instructions == ["lift the red cube"]
    np.testing.assert_array_equal(films.training[1].frames, 255 - films.training[0].frames)
    slow = corpus([data], seen, 2.0, 16, 1, text=False)
    assert slow.instructions == [""] and slow.fingerprint != films.fingerprint
    np.testing.assert_array_equal(slow.training[0].frames, films.training[0].frames[::2])
    np.testing.assert_allclose(slow.training[0].progress, films.training[0].progress[::2])


def demonstrations(path, count=4, fps=30, size=32, instructions=("fold the towel",)):
    """A file with no more than a robot's recordings have: actions, what a camera saw, and what was to be done."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"control_freq": fps})
        for index in range(count):
            demo, length = data.create_group(f"demo_{index}"), 90 + index
            demo["actions"] = rng.normal(size=(length, 6)).astype(np.float32)
            demo["frames/front"] = rng.integers(0, 255, (length, size, size, 3), np.uint8)
            demo["frames/step"] = np.arange(length, dtype=np.int32)
            demo.attrs["instruction"] = instructions[index % len(instructions)]
    return path


def test_critics_learn_from_a_robots_own_recordings(tmp_path):
    path = demonstrations(tmp_path / "mine.hdf5")
    footage, preset = FileFilms([str(path)], ["front"], held_out=1), stages().wvm
    assert footage.announced(preset) == ["fold the towel"]
    films = footage.films(preset)
    assert (len(films.training), len(films.held_out), films.camera) == (3, 1, "front")
    frames, step = Dataset(path).frames(2, "front", preset.fps)
    assert films.training[2].frames.shape == (len(step), preset.size, preset.size, 3)
    np.testing.assert_allclose(films.training[2].progress, step / 91, rtol=1e-6)
    blocks = frames.reshape(len(step), preset.size, 32 // preset.size, preset.size, 32 // preset.size, 3)
    np.testing.assert_array_equal(films.training[2].frames, np.round(blocks.mean((2, 4))))


def test_films_of_other_cameras_are_others(tmp_path):
    """Stages are kept by what the films are."""
    episodes = [episode(index, 80) for index in range(3)]
    for each in episodes:
        each.frames["wrist"] = 255 - each.frames["workspace"]
    path, preset = dataset(tmp_path / "d.hdf5", episodes).path, replace(stages().wvm, fps=4.0)
    chosen = (["workspace"], ["wrist"], ["workspace", "wrist"], ["wrist", "workspace"])
    films = [FileFilms([str(path)], cameras, held_out=1).films(preset) for cameras in chosen]
    assert len({each.fingerprint for each in films}) == len(chosen)
    assert films[0].fingerprint == FileFilms([str(path)], held_out=1).films(preset).fingerprint


def test_instructions_of_held_out_episodes_alone_are_refused(tmp_path):
    episodes = [replace(episode(index, 80), instruction=text) for index, text in enumerate(("fold", "fold", "wipe"))]
    path, preset = dataset(tmp_path / "d.hdf5", episodes).path, replace(stages().wvm, fps=4.0)
    with pytest.raises(InputError, match="`wipe` is told in held-out episodes alone"):
        FileFilms([str(path)], held_out=1).films(preset)


def test_only_successful_experts_are_learned_from(tmp_path, capsys):
    kinds = [("expert", True), ("hesitation", True), ("failure", False), ("expert", True)]
    episodes = [episode(index, 80, (), success, quality) for index, (quality, success) in enumerate(kinds)]
    episodes[2] = replace(episodes[2], instruction="")  # nor is anything asked of those left out
    episodes.insert(1, episode(4, 80, [("retry", 10, 20)]))  # whoever did it
    path = dataset(tmp_path / "mixed.hdf5", episodes).path
    preset = replace(stages().wvm, fps=4.0)
    footage = FileFilms([str(path)], held_out=1)
    assert footage.announced(preset) == ["lift the red cube"]
    films = footage.films(preset)
    assert (len(films.training), len(films.held_out)) == (1, 1)
    assert "mixed.hdf5: 3 of 5 episodes are no successful experts': left out" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"has 2 successful experts' episodes, 2 of them among its last 5"):
        FileFilms([str(path)], held_out=5).films(preset)
    failed = dataset(tmp_path / "failed.hdf5", [episodes[3]]).path
    with pytest.raises(InputError, match="has no successful experts' episodes"):
        FileFilms([str(failed)]).announced(preset)


@pytest.mark.parametrize(
    ("settings", "cameras", "message"),
    [
        ({"instructions": ("",)}, ["front"], r"demo_0 has no instruction: add the attribute, or learn without"),
        ({"size": 33}, ["front"], r"demo_0 has frames of 33x33 of front, the critic reads"),
        ({"fps": 2}, ["front"], r"mine\.hdf5 has 2 frames a second, the critic reads"),
        ({}, ["wrist"], r"demo_0 has no frames of camera wrist \(all episodes have: front\)"),
        ({}, [], r"data\.cameras must name at least one"),
    ],
)
def test_films_that_no_critic_can_learn_from_are_refused(tmp_path, settings, cameras, message):
    path = demonstrations(tmp_path / "mine.hdf5", **settings)
    with pytest.raises(InputError, match=message):
        FileFilms([str(path)], cameras, held_out=1).announced(stages().wvm)


def test_the_command_makes_a_critic_that_labels_other_recordings(tmp_path, compile_quickly):
    told = ("fold the towel", "smooth it")
    mine = demonstrations(tmp_path / "mine.hdf5", instructions=told)
    footage = FileFilms([str(mine)], ["front"], held_out=1, root=str(tmp_path))
    alike = {name: getattr(small(), name) for name in ("wvm", "compression", "vae", "model", "pool", "loss")}
    config = PretrainConfig(**alike, data=footage, out=str(tmp_path / "critic"))  # compiled for `test_pretrain`
    main(config)
    critic = Critic.load(tmp_path / "critic")
    assert (critic.camera, critic.instructions, critic.size) == ("front", [*told], 16)
    assert "| episodes | of mine.hdf5 |" in critic.card and "| films | 3 for training, 1 held out |" in critic.card
    other = Dataset(demonstrations(tmp_path / "other.hdf5", count=2))
    labels = label(other, WvmConfig(critic=str(tmp_path / "critic")).source(), progress=False)
    assert [len(each) for each in labels] == other.lengths and all(np.isfinite(each).all() for each in labels)

    (tmp_path / "critic" / "README.md").write_text("edited")
    main(config)  # it is there already
    assert Critic.load(tmp_path / "critic").card == "edited"
    with pytest.raises(InputError, match="holds another critic: choose another folder"):
        main(replace(config, reading=Reading(prefixes=2)))
    with pytest.raises(InputError, match="holds a critic, perhaps another one: choose another folder, or move it"):
        main(replace(config, model_seed=1))
