"""Settings by name: files, names, and what wins over what."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from worlds import recsys_here

from recsys_embed import ModelConfig, Recommender, RunConfig, TrainConfig, load_dataset, preset
from recsys_embed.config.fields import settings
from recsys_embed.errors import DataError, SettingError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.presets import SETTINGS, USER_FOLDER, Preset, find_preset, list_presets, write_preset

WORLD = "synthetic:users=60,items=40,ratings=900"
BOTH = 'about = "a test"\n[settings]\nuser_tower = "both"\ndim = 6\nepochs = 2\npatience = 5\nbiases = false\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.toml").write_text(BOTH)
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """Run a command in this process; what reaches the training comes back: all settings, by name."""
    from recsys_embed.cli.main import app

    def run(*words):
        found = {}

        def instead(*configs):
            found.update(settings(*configs))
            raise InterruptedError

        monkeypatch.setattr("recsys_embed.experiment.run.run_experiment", instead)
        with pytest.raises(InterruptedError):
            app(list(words), standalone_mode=False)
        return found

    return run


def test_what_ships_is_read_and_says_what_it_is():
    shipped = {p.name: p for p in list_presets()}
    assert {"ml-100k", "ml-1m"} <= set(shipped)
    for each in shipped.values():
        assert each.about and each.source and each.settings and {"dataset", "metric", "value"} <= set(each.validation)
    model, train = preset("ml-1m")
    assert (model.user_tower, model.cosine, model.dim, train.user_decay, train.epochs) == ("id", True, 256, 2, 30)


def test_options_win_over_the_preset_which_wins_over_defaults(here, trained):
    usual = trained("train")
    begun = trained("train", "--preset", "mine")
    own = {"user_tower": "both", "dim": 6, "epochs": 2, "patience": 5, "biases": False}
    assert begun == {**usual, **own, "preset": "mine"}
    # What is given wins even where it is the default.
    given = trained("train", "--preset", "mine", "--user-tower", "id", "--dim", "9", "--biases", "--lr", "0.1")
    assert given == {**begun, "user_tower": "id", "dim": 9, "biases": True, "lr": 0.1}
    assert trained("train", "--preset", str(USER_FOLDER / "mine.toml")) == {**begun, "preset": "presets/mine.toml"}


@pytest.mark.parametrize("words", [(), ("--user-tower", "id", "--biases"), ("--dim", "9", "--patience", "8")])
def test_the_command_of_a_training_repeats_it(here, trained, words):
    from recsys_embed.config.fields import command
    from recsys_embed.config.settings import DataConfig
    from recsys_embed.presets import preset_settings

    chosen = trained("train", "--preset", "mine", *words)
    configs = [
        kind(**{k: v for k, v in chosen.items() if k in kind.__dataclass_fields__})
        for kind in (DataConfig, ModelConfig, TrainConfig, RunConfig)
    ]
    said = command(*configs, preset=preset_settings("mine"))
    assert trained(*shlex.split(said)[1:]) == chosen
    assert len(shlex.split(said)) == 6 + len(words), "what the preset has is left to it"


def test_a_run_says_which_preset_it_began_from(here):
    def run(model, train):
        report = RunConfig(preset="mine", out="model", track=False, resamples=0, baselines=False)
        return run_experiment(None, model, train, report, dataset=load_dataset(WORLD))[1]["settings"]

    found = run(*preset("mine", dim=4))
    assert found["preset"] == "mine" and found["user_tower"] == "both" and found["dim"] == 4
    with pytest.raises(SettingError, match=r"preset\('mine'\) gives the ModelConfig"):
        run(ModelConfig(), TrainConfig())


def test_a_recommender_takes_one(here):
    made = Recommender(*preset("mine", epochs=1)).fit(load_dataset(WORLD).ratings)
    assert made.metadata["settings"]["user_tower"] == "both" and made.metadata["settings"]["epochs"] == 1


def test_ones_own_hides_a_shipped_one_and_none_leaves_the_folder(here):
    (USER_FOLDER / "ml-1m.toml").write_text(BOTH)
    assert find_preset("ml-1m").settings["dim"] == 6
    assert [p.path for p in list_presets() if p.name == "ml-1m"] == ["presets/ml-1m.toml"]
    (here / "outside.toml").write_text(BOTH)
    assert preset("outside.toml").model.dim == 6
    with pytest.raises(SettingError, match="no preset '../outside'"):
        preset("../outside")


numbers = st.floats(0.001, 0.9)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@tries(deadline=None, max_examples=40)
@given(lr=numbers, epochs=st.integers(1, 99), tower=st.sampled_from(["id", "both"]), on=st.booleans(), about=texts)
def test_a_file_gives_back_what_was_written(tmp_path_factory, lr, epochs, tower, on, about):
    chosen = {"lr": lr, "epochs": epochs, "user_tower": tower, "refit": on, "mlp_layers": "8,4"}
    made = Preset("a.b-1", chosen, about, "here", {"value": lr, "data": about, "start": 1e-7})
    path = write_preset(made, tmp_path_factory.mktemp("presets"))
    assert Preset.read(path) == Preset(**{**vars(made), "path": str(path)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dim = ", "not a readable preset"),
        ("nothing = 1", "no key 'nothing'; there are about, source, validation, settings"),
        ("[settings]\nsize = 4", "no setting 'size'; there are model_family, dim"),
        ("[settings]\nseed = 4", "no setting 'seed'"),
        ('[settings]\ndim = "big"', "dim must be a whole number, got 'big'"),
        ("[settings]\ndim = 4.5", "dim must be a whole number, got 4.5"),
        ("[settings]\nepochs = true", "epochs must be a whole number, got True"),
        ("[settings]\nrefit = 1", "refit must be true or false, got 1"),
        ("[settings]\nloss = 3", "loss must be a text, got 3"),
        ('[settings]\nloss = "hinge"', "loss must be one of softmax"),
        ("[settings]\nlr = 0", "lr must be above 0, got 0"),
        ("settings = 3", "settings must be a table"),
        ("about = 3", "about must be a text"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, said):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(DataError) as error:
        preset(str(tmp_path / "bad.toml"))
    assert said in str(error.value) and "bad.toml" in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_list_what_there_is(here):
    with pytest.raises(SettingError, match="no preset 'nothing'; there are .*mine, .*ml-1m"):
        preset("nothing")
    with pytest.raises(SettingError, match=r"no preset file nothing\.toml"):
        preset("nothing.toml")
    with pytest.raises(SettingError, match="no setting 'size'; there are model_family, dim, "):
        preset("ml-1m", size=3)
    assert preset("ml-1m", seed=3).train.seed == 3 and "seed" not in SETTINGS


def test_the_commands_list_and_refuse_in_one_line(here):
    (USER_FOLDER / "broken.toml").write_text("dim = ")
    known = [p.name for p in list_presets()]
    assert {"mine", "ml-1m"} <= set(known)
    done = recsys_here("presets", cwd=here)
    assert "left out: presets/broken.toml is not a readable preset" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:-1]] == known
    listed = json.loads(recsys_here("presets", "--json", cwd=here).stdout)["presets"]
    assert [p["name"] for p in listed] == known and all(p["settings"] for p in listed)
    refused = recsys_here("train", "--preset", "none", cwd=here, code=2).stderr
    assert "no preset 'none'; there are " in refused and "mine, " in refused and refused.count("\n") == 1
    recsys_here("train", "--preset", "broken", cwd=here, code=3)
