"""An option that is given twice: collected where several values make sense, otherwise refused; never one in silence."""

import pytest
import typer
from typer.main import get_command
from worlds import recsys_here

from recsys_embed.cli.main import app
from recsys_embed.cli.program import _COLLECTED, collected
from recsys_embed.errors import SettingError


def options_of(*words):
    command = get_command(app)
    for word in words:
        command = command.commands[word]
    return [p for p in command.params if p.param_type_name == "option"]


RECOMMEND = options_of("recommend")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--exclude", "7", "--exclude=18", "--k", "3"], ["--exclude", "7;18", "--k", "3"]),
        (
            ["--where", "a > 1", "--k", "3", "--where", "b < 2 or c"],
            ["--where", "(a > 1) and (b < 2 or c)", "--k", "3"],
        ),
        (["--likes", "A;B", "--likes", "--exclude"], ["--likes", "A;B;--exclude"]),
        (["--json", "--json"], ["--json", "--json"]),
        (["--k=3", "--", "--k", "4"], ["--k", "3", "--", "--k", "4"]),
        (["--k"], ["--k"]),  # the parser says what is missing
        (["word", "--nothing=1", "--nothing=2"], ["word", "--nothing=1", "--nothing=2"]),
    ],
)
def test_values_are_collected(args, expected):
    assert collected(args, RECOMMEND) == expected


@pytest.mark.parametrize("name", [o.name for o in RECOMMEND if not (o.is_flag or o.name in _COLLECTED)])
def test_other_options_are_refused(name):
    flag = next(o for o in RECOMMEND if o.name == name).opts[0]
    with pytest.raises(SettingError, match=f"{flag} is given 2 times \\(1, 2\\)"):
        collected([flag, "1", f"{flag}=2"], RECOMMEND)


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), commands(get_command(app)), ids=lambda value: str(value)[:40])
def test_no_command_drops_a_value(path, command):
    """Of every option of every command with one value: two values are put together, or end with exit code 2."""
    for option in options_of(*path):
        if option.is_flag or option.multiple or option.name in _COLLECTED:
            continue
        with pytest.raises(SettingError):
            command.parse_args(typer.Context(command), [option.opts[0], "1", option.opts[0], "2"])


@pytest.mark.parametrize("command", ["train", "classify"])
def test_two_files_of_texts_are_no_list_of_columns(command):
    with pytest.raises(SettingError, match="--text is given 2 times .a.txt, b.txt."):
        collected(["--text", "a.txt", "--text", "b.txt"], options_of("words", command))
    assert collected(["--text", "title", "--text", "genres"], options_of("train")) == ["--text", "title,genres"]


def test_the_program_says_so(tmp_path):
    done = recsys_here("recommend", "--user", "1", "--user", "2", cwd=tmp_path, code=2)
    assert "--user is given 2 times (1, 2): give it once" in done.stderr
