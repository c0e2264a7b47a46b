"""Options and settings under the names of the version before: they still work, and say what they are called now."""

import pytest
import typer
from test_rooms import DIALECT, words_of
from typer.testing import CliRunner
from worlds import recsys

from recsys_embed.cli.main import app
from recsys_embed.config import answers, settings, tuning
from recsys_embed.config.fields import flag
from recsys_embed.config.renamed import RENAMED, current_names
from recsys_embed.errors import DataError, RecsysError, SettingError
from recsys_embed.presets import Preset

COMMANDS = typer.main.get_command(app).commands
CONFIGS = [
    value
    for name, value in (vars(settings) | vars(answers) | vars(tuning)).items()
    if name.endswith("Config") or name == "Rules"
]
FIELDS = {field for config in CONFIGS for field in config.__dataclass_fields__}
# These are options of commands and no settings.
OPTIONS = {"among", "rated"}


def run(*words):
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, RecsysError):
        raise done.exception
    return done


def test_every_new_name_is_there_and_no_old_one():
    assert {new for old, new in RENAMED.items() if old not in OPTIONS} <= FIELDS
    assert not set(RENAMED) & FIELDS
    assert {"candidates", "ratings"} <= {p.name for p in COMMANDS["recommend"].params}


def all_commands(command):
    return [command, *(sub for child in getattr(command, "commands", {}).values() for sub in all_commands(child))]


@pytest.mark.parametrize("command", all_commands(typer.main.get_command(app)), ids=lambda c: c.name)
def test_options_are_the_fields_words(command):
    for parameter in command.params:
        if not parameter.hidden:
            for name in parameter.opts:
                assert not words_of(name.replace("-", "_")) & DIALECT, name


def test_an_old_option_works_and_says_its_new_name(tmp_path):
    done = recsys("train", "--dataset", "synthetic", "--continue", "none", cwd=tmp_path, code=5)
    assert "--continue is called --warm-start now" in done.stderr and "no model folder" in done.stderr


def test_an_old_option_counts_as_given(tmp_path):
    """A preset must not win over it."""
    (tmp_path / "p.toml").write_text("[settings]\nmax_grad_norm = 5.0\n")
    with pytest.raises(SettingError, match="max-grad-norm must be above 0, got -1"):
        run("train", "--dataset", "synthetic", "--preset", str(tmp_path / "p.toml"), "--clip", "-1")


def test_both_names_at_once_are_refused():
    with pytest.raises(SettingError, match="--among is the old name of --candidates: give one of them"):
        run("recommend", "--anonymous", "--among", "1", "--candidates", "2")


@pytest.mark.parametrize("name", ["train", "tune", "recommend", "map", "serve", "explain"])
def test_old_options_are_in_no_help(name):
    shown = run(name, "--help").output + (run(name, "--help-all").output if name not in ("map", "explain") else "")
    old = [p for p in COMMANDS[name].params if p.name.startswith("old_")]
    assert old and all(p.hidden and p.opts[0] + " " not in shown for p in old)


def test_a_preset_of_old_names_is_read(tmp_path):
    (tmp_path / "mine.toml").write_text('[settings]\nclip = 2.0\nhidden = "8"\n')
    assert Preset.read(tmp_path / "mine.toml").settings == {"max_grad_norm": 2.0, "mlp_layers": "8"}


def test_current_names_keep_the_order_and_both_names_are_refused(tmp_path):
    assert list(current_names({"lr": 1, "clip": 2, "dim": 3})) == ["lr", "max_grad_norm", "dim"]
    (tmp_path / "mine.toml").write_text("[settings]\nclip = 2.0\nmax_grad_norm = 3.0\n")
    with pytest.raises(DataError, match="clip is the old name of max_grad_norm: give one of them"):
        Preset.read(tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["train", "tune", "recommend", "serve"])
def test_help_fits_one_screen_and_help_all_has_everything(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    brief, whole = (run(name, option) for option in ("--help", "--help-all"))
    assert brief.exit_code == whole.exit_code == 0 and len(brief.output.splitlines()) <= 40
    for p in COMMANDS[name].params:
        if not p.name.startswith("old_"):
            assert flag(p.name) in whole.output or p.opts[0] in whole.output


def test_help_all_of_one_call_hides_again_in_the_next():
    before = run("train", "--help").output
    run("train", "--help-all")
    assert run("train", "--help").output == before
