"""What a terminal shows: tables that fit, colours where they are wanted, and no title that is obeyed."""

from types import SimpleNamespace

import pytest

from recsys_embed.cli import output


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Run on a made-up terminal of 40 cells, and give what it was told."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    return lambda: capsys.readouterr().out


TITLES = [["1", "七人の侍 " * 8, "4.25"], ["2", "Amélie 🎬", "3.50"], ["30", "plain", "2.75"]]


def test_tables_fit_and_wide_characters_align(terminal):
    from rich.cells import cell_len

    output.print_table(["#", "title", "score"], TITLES, "# score")
    head, *lines = terminal().splitlines()
    assert [cell_len(line) for line in lines] == [40, 40, 40]
    assert [line.split()[-1] for line in lines] == ["4.25", "3.50", "2.75"]
    assert head.startswith("\x1b[1m") and head.endswith("\x1b[0m") and "\x1b" not in "".join(lines)
    output.print_table(["title", "n"], [["七人の侍", "1"], ["plain", "2"]])
    assert terminal().splitlines()[1:] == ["七人の侍  1", "plain     2"]
    output.print_table(["a", "b", "n"], [["x" * 50, "y" * 30, "1" * 20]], "n")
    (line,) = terminal().splitlines()[1:]
    assert len(line) == 40 and line.endswith("…  " + "1" * 20) and line.count("…") == 2


@pytest.mark.parametrize(
    ("environment", "styled"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False),
     ({"TERM": "dumb", "FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
)  # fmt: skip
def test_what_is_asked_of_colours_is_kept(terminal, monkeypatch, environment, styled):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output.print_table(["title"], [["x"]])
    output.echo("aside", dim=True)
    output.echo("result")
    assert terminal().splitlines() == (
        ["\x1b[1mtitle\x1b[0m", "x", "\x1b[2maside\x1b[0m", "result"] if styled else ["title", "x", "aside", "result"]
    )


def test_no_colour_where_nobody_looks_and_no_title_is_obeyed(monkeypatch, capsys):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    output.print_table(["title\x1b[31m"], [["\x1b]0;owned\x07\u202etxt\u2028next\x9b2J"]])
    output.echo("\x1b[2Jgone", dim=True)
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\u202e\u2028\x9b") & set(shown) and "owned" in shown
