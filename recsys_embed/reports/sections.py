"""The sections of the report about the data, the examples, trends, events, and the method."""

from __future__ import annotations

from recsys_embed.reports import charts
from recsys_embed.reports.examples import Example
from recsys_embed.reports.facts import Data, count_bins, rising, timeline_of, values_of
from recsys_embed.reports.markup import Markup, element, join, table
from recsys_embed.reports.pictures import SIZE, Pictures
from recsys_embed.reports.quality import p
from recsys_embed.reports.words import SPLITS, Terms, method_text, sizes_text
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.verdict import counted

_KINDS = {
    "few": "Few {rating}s",
    "typical": "A typical number of {rating}s",
    "many": "Many {rating}s",
    "best": "The list that turned out best",
    "nothing": "A list without a hit, in spite of many {rating}s",
    "new": "A new {user}",
}
# A model for production has learnt from the test since: its lists are others than those that were tested.
_KINDS_FOR_PRODUCTION = _KINDS | {
    "best": "Whose list was the best of the test",
    "nothing": "Whose list had no hit in the test, in spite of many {rating}s",
}
# What the words about the test mean, and what no test of this kind can say.
_CONFIDENCE = (
    "A range “with 95 % confidence” comes from repeating the test on users drawn again and again from those tested: "
    "19 of 20 results lie in it. A difference is clear if its range does not include zero, and if chance alone would "
    "give as much in less than 1 of 20 tests."
)
_LIMITS = (
    "What no such test can say: whether these lists change what people do, since it counts what {user}s took without "
    "them. Only showing them to some people and not to others says that (an A/B test)."
)


def data_section(state: FittedState, data: Data | None, missing: str, terms: Terms) -> list[Markup]:
    """Return what the data are: sizes, dates, how many ratings users and items have."""
    text = f"The model learned from {sizes_text(state, terms)}. "
    if not state.is_graph:
        text += "A rating is any record that a user took an item: stars, a purchase, a view. "
    updates = state.metadata.get("updated")
    text += f"{counted(updates['ratings'], terms.rating)} came after the training. " if updates else ""
    out = [p(text)]
    if data is None:
        out.append(p(f"The data themselves could not be read ({missing}), so this report has no dates.", class_="note"))
    else:
        timeline = timeline_of(data.dataset.ratings.time)
        if timeline is not None:
            days = f"{timeline.first} to {timeline.last}"
            label = f"{terms.rating}s in each {timeline.unit}, {days}; at most {max(timeline.counts):,}"
            picture = charts.columns(timeline.counts, label)
            out.append(element("figure", element("figcaption", label[0].upper() + label[1:]), picture))
        values = values_of(data.dataset.ratings)
        if values:
            out.append(_bins("The values of the ratings", "value", [(f"{v:g}", n) for v, n in values], terms.rating))
    who = terms.user + "s"
    out.append(_bins(f"How many {terms.rating}s {who} have", terms.rating + "s", count_bins(state.seen.count), who))
    if not state.is_graph:
        caption, bins = f"How many {terms.rating}s {terms.item}s have", count_bins(state.item_counts)
        out.append(_bins(caption, terms.rating + "s", bins, terms.item + "s"))
    return out


def _bins(caption: str, name: str, bins: list[tuple[str, int]], what: str) -> Markup:
    most = max([count for _, count in bins], default=1)
    rows = [(label, f"{count:,}", charts.bars((count / most, "model"))) for label, count in bins]
    return table(caption, (name, what if what.endswith("s") else what + "s", ""), rows, (1,))


def examples_section(state: FittedState, found: list[Example], pictures: Pictures, terms: Terms) -> list[Markup]:
    """Return the example lists."""
    intro = f"The first three {terms.user}s were chosen by how many {terms.rating}s they have, without a look at their "
    intro += "lists. "
    if any(example.kind in ("best", "nothing") for example in found):
        intro += "The best and the worst were chosen for how their lists turned out: they are not typical. "
    if _knows_its_test(state):
        intro += "These lists are of the model that has learnt from the test as well, as it is used: what comes next "
        intro += "will say whether they are right."
    else:
        intro += f"✓ marks what the {terms.user} turned out to have taken, which the model did not know."
    cards = (_example(state, example, pictures, terms) for example in found)
    return [p(intro), element("div", cards, class_="examples")]


def _knows_its_test(state: FittedState) -> bool:
    """Return whether the model was measured, and fitted on everything afterwards."""
    test = (state.metadata.get("metrics") or {}).get("test")
    return "production" in state.metadata and bool(test and test.get("users"))


def _example(state: FittedState, example: Example, pictures: Pictures, terms: Terms) -> Markup:
    knows_its_test = _knows_its_test(state)
    kind = (_KINDS_FOR_PRODUCTION if knows_its_test else _KINDS)[example.kind].format(**terms._asdict())
    id_ = "" if example.user < 0 else f": {terms.user} {state.users.series[example.user]}"
    had = _history(state, example, terms)
    hits = sum(entry.hit for entry in example.entries)
    result = ""
    if example.n_test:
        kept = counted(example.n_test, terms.rating)
        result = f"{kept} kept back; {hits} of {len(example.entries)} in the list were among them."
    elif example.user >= 0 and not knows_its_test:
        result = "Nothing was kept back, so nobody knows whether this list is right."
    items = (_entry(state, example, n, pictures) for n in range(len(example.entries)))
    return element("article", element("h3", join(kind, element("bdi", id_))), had, element("h4", "gets"),
                   element("ol", items), p(result, class_="note") if result else "")  # fmt: skip


def _history(state: FittedState, example: Example, terms: Terms) -> Markup:
    if example.user < 0:
        popular = "is popular lately" if state.trend is not None else "most have"
        return p(f"Nothing is known yet, so the list is what {popular}. A few likes change it at once.")
    names = [
        join(element("bdi", state.titles[owned.row]), "" if owned.value is None else f", rated {owned.value:g}")
        for owned in example.history
    ]
    more = example.n_history - len(names)
    text = [part for name in names for part in (name, "; ")][:-1]
    rest = f" and {more:,} more" if more > 0 else ""
    return join(element("h4", f"has {counted(example.n_history, terms.rating)}"), p(join(*text), rest, "."))


def _entry(state: FittedState, example: Example, number: int, pictures: Pictures) -> Markup:
    entry = example.entries[number]
    source = pictures.of(entry.row)
    picture = element("img", src=source, alt="", width=SIZE, height=SIZE) if source else ""
    why = [part for row in entry.reasons for part in (element("bdi", state.titles[row]), ", ")][:-1]
    mark = element("span", " ✓", class_="hit", role="img", aria_label="kept back: a hit") if entry.hit else ""
    if why:
        reason = join("goes with ", *why)
    else:
        count = int(state.item_counts[entry.row])
        reason = join(counted(count, "link" if state.is_graph else "rating"), " in all")
    text = element("div", element("bdi", state.titles[entry.row]), mark, element("small", reason))
    return element("li", element("div", picture, text, class_="entry"))


def trend_section(state: FittedState, terms: Terms) -> list[Markup]:
    """Return what is rated more lately than before; nothing without a trend."""
    found = rising(state)
    if state.trend is None or not found:
        return []
    rows = [
        (element("bdi", state.titles[item.row]), f"{item.times:.1f} times", f"{item.ratings:,}",
         charts.bars((item.times / found[0].times, "model")))
        for item in found
    ]  # fmt: skip
    days = f"{state.trend.half_life:g} days"
    text = f"What is rated more lately than before comes higher in all lists. “Lately” fades: after {days} a "
    text += f"{terms.rating} counts half. That this helps was found on {terms.rating}s that came later."
    names = (terms.item, "as often as before", f"{terms.rating}s in all", "")
    return [p(text), table("What rises most at the end of the data", names, rows, (1, 2))]


def events_section(state: FittedState, data: Data | None, terms: Terms) -> list[Markup]:
    """Return what events of each type count; nothing for a model without types."""
    types = state.event_types.types
    if not types:
        return []
    log = None if data is None else data.dataset.log
    numbers = {} if log is None else dict(zip((t.name for t in log.types), log.counts.tolist(), strict=True))
    rows = [
        (name, f"{numbers[name]:,}" if name in numbers else "", f"{t.weight:g}" if t.weight else "does not count",
         "yes" if t.is_target else "no", "yes" if t.hides else "no")
        for name, t in types.items()
    ]  # fmt: skip
    names = ("event", "how many", "weight", "the test is about it", f"hides the {terms.item} afterwards")
    text = f"A {terms.user} may do several things with an {terms.item}. A weight says how much one such event counts."
    return [p(text), table("Types of events", names, rows, (1, 2))]


def method_section(state: FittedState, terms: Terms) -> list[Markup]:
    """Return how it was measured, in plain words, and what the test cannot tell."""
    given, metrics = state.metadata.get("settings", {}), state.metadata.get("metrics") or {}
    test = metrics.get("test")
    out = [method_text(state)]
    if test and test.get("users"):
        split = SPLITS.get(given.get("split", ""), "Some ratings were kept back")
        if given.get("test"):
            split = "The ratings to test on came in a file of their own"
        out.append(f"{split}. Settings were chosen on another part that was kept back too; the test was made once.")
        threshold = given.get("min_rating")
        if threshold is not None:
            out.append(f"Only {terms.rating}s of {threshold:g} or more count as right.")
        drawn = f", drawn from {test['drawn_from']:,}" if "drawn_from" in test else ""
        hiding = state.event_types.hiding
        had = "" if hiding is None else f" by events that hide it ({', '.join(hiding)})"
        out.append(f"All {terms.item}s were ranked for {counted(test['users'], terms.user)}{drawn}, without what they "
                   f"had already{had}. The baselines had the same data and the same test.")  # fmt: skip
        if test["left_out"]:
            out.append(
                f"{counted(test['left_out'], 'test ' + terms.rating)} could not be hit: the {terms.item} was new."
            )
        if _knows_its_test(state):
            out.append(
                f"Afterwards the model was fitted once more, on all {terms.rating}s, those of the test included, with "
                "the settings that were chosen. That model is used, and the numbers are from before."
            )
        out.append(_CONFIDENCE)
        windows = metrics.get("windows")
        if windows:
            out.append(f"The same was done at {counted(len(windows['each']), 'point')} in time; NDCG "
                       f"{windows['mean']['this model']:.3f} on average.")  # fmt: skip
    out.append(_LIMITS.format(**terms._asdict()))
    day, command = str(state.metadata.get("created", ""))[:10], state.metadata.get("command")
    tail = [p(f"Trained on {day}.", class_="note")] if day else []
    if command:
        tail += [p("The same training again, for whoever has the data:"), element("pre", element("code", command))]
    return [element("ul", (element("li", text) for text in out)), *tail]
