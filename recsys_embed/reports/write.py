"""write_report: one HTML file about a model, for people who do not read code."""

from __future__ import annotations

import base64
import hashlib
import logging
from importlib.resources import files
from pathlib import Path

from recsys_embed.recommender import Recommender
from recsys_embed.reports import quality, sections
from recsys_embed.reports.examples import examples
from recsys_embed.reports.facts import groups_of, lists_of, load_data
from recsys_embed.reports.markup import Markup, element, join
from recsys_embed.reports.pictures import Pictures
from recsys_embed.reports.words import Terms, dataset_name, sizes_text
from recsys_embed.storage.atomic import atomic_write
from recsys_embed.version import __version__

log = logging.getLogger("recsys_embed")


def write_report(
    recommender: Recommender,
    out: str | Path = "report.html",
    *,
    name: str = "",
    images: str | Path | None = None,
    offline: bool = False,
) -> Path:
    """Write the report of a model to an HTML file, atomically, and return the file.

    It says what the data are, what the model does better than simple lists and how sure that is, for whom it fails,
    shows example lists, and how all was measured; see docs/report.md. The file loads nothing else.

    name: of the model, for the footer. images: folder of the items' pictures, files named by their ids; by default the
    one that the model was trained with, or files that the item table names. The data of the training are read again
    for dates and groups; where they are not there, the report says what it lacks. offline: never use the network.
    Raises DataError if the file cannot be written, or if there is no such folder of pictures.
    """
    out = Path(out)
    html = report_html(recommender, name, None if images is None else Path(images), offline)
    with atomic_write(out) as file:
        file.write(html.encode())
    return out


def report_html(recommender: Recommender, name: str = "", images: Path | None = None, offline: bool = False) -> str:
    """Return the page; see `write_report`."""
    state, terms = recommender.state, Terms.of(recommender.state)
    pictures = Pictures(state, images)
    log.info("reading the data of the training")
    data, missing = load_data(recommender, offline)
    test = None if data is None else data.test
    log.info("ranking for users of all groups")
    chapters = [
        ("better", "Is it better than something simple?", quality.verdict_section(state, terms)),
        ("data", "What the data are", sections.data_section(state, data, missing, terms)),
        ("fails", "For whom it fails", quality.failures_section(state, groups_of(recommender, test), terms)),
        ("worst", "What a list does at worst", quality.worst_section(state, lists_of(state), terms)),
        ("examples", "Example lists", sections.examples_section(state, examples(state, data), pictures, terms)),
        ("trends", "What rises now", sections.trend_section(state, terms)),
        ("events", "Which events count", sections.events_section(state, data, terms)),
        ("method", "How this was measured", sections.method_section(state, terms)),
    ]
    title = f"Recommendations from {dataset_name(state.metadata)}"
    return _page(title, sizes_text(state, terms), [chapter for chapter in chapters if chapter[2]], name)


def _page(title: str, subtitle: str, chapters: list[tuple[str, str, list[Markup]]], name: str) -> str:
    """Return the whole page. Its content security policy allows its own style and embedded pictures, and nothing else:
    there is no script, and no address is loaded."""
    style = (files("recsys_embed.reports") / "web" / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    links = (element("li", element("a", heading, href=f"#{anchor}")) for anchor, heading, _ in chapters)
    body = element(
        "body",
        element("header", element("h1", element("bdi", title)), element("p", subtitle)),
        element("nav", element("ul", links), aria_label="Contents"),
        element(
            "main",
            (element("section", element("h2", heading, id=anchor), *content) for anchor, heading, content in chapters),
        ),
        element("footer", element("p", join(f"{name}   " if name else "", f"recsys-embed {__version__}"))),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"
