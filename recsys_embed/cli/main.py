"""recsys: the program. Each command or group of commands has a file of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from recsys_embed.cli import (
    audience,
    compare,
    data,
    evaluate,
    explain,
    export,
    items,
    map,
    models,
    predict,
    recommend,
    report,
    retrain,
    search,
    serve,
    similar,
    train,
    tune,
    variants,
    words,
)
from recsys_embed.cli.output import clean, start_logging
from recsys_embed.cli.program import Program
from recsys_embed.errors import RecsysError
from recsys_embed.version import __version__

app = Program(
    name="recsys",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recsys-embed {__version__}")
        raise typer.Exit


@app.callback()
def recsys(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Recommendations from embeddings: train on a ratings file, evaluate, recommend, serve, and track every run."""
    start_logging(quiet)


app.command()(train.train)
app.command()(retrain.retrain)
app.command()(evaluate.evaluate)
app.command()(tune.tune)
app.command()(tune.presets)
app.command()(recommend.recommend)
app.command()(audience.audience)
app.command()(similar.similar)
app.command()(predict.predict)
app.command()(explain.explain)
app.command()(serve.serve)
app.command()(variants.variants)
app.command("map")(map.draw)
app.command()(compare.compare)
app.command()(report.report)
app.command("models")(models.list_models)
app.command()(models.ui)
app.command()(search.search)
app.command()(export.export)
app.add_typer(data.app, name="data")
app.add_typer(items.app, name="items")
app.add_typer(words.app, name="words")


@contextlib.contextmanager
def _terminate_like_ctrl_c() -> Iterator[list[int]]:
    """Let SIGTERM, by which machines end programs, do what Ctrl-C does, such as keep the best model so far.

    Yields a list that is empty until it comes. (A service that runs has its own way.)
    """
    came: list[int] = []

    def end(number: int, frame: Any) -> None:
        came.append(number)
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # a shell ignores it for programs in the background
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the program; errors in the input are one line on stderr and an exit code of their own."""
    # torch's threads spin for long while they wait for each other, which makes training 20 times slower as soon as
    # another program needs a core. A short spin costs nothing on an idle machine. NumPy's threads spin after each
    # matrix product: a validation would halve the speed of the next epoch.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    with _terminate_like_ctrl_c() as terminated:
        try:
            code = _run()
        except BaseException as error:
            if not terminated:
                raise
            if not isinstance(error, SystemExit | KeyboardInterrupt):  # a bug, whose traceback is the reason
                sys.excepthook(type(error), error, error.__traceback__)
    sys.exit(128 + signal.SIGTERM if terminated else code)


def _run() -> int:
    """Run the program, say what is wrong with the input, and return the exit code."""
    try:
        app()
    except RecsysError as error:
        print(f"error: {clean(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {clean(error)}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    main()
