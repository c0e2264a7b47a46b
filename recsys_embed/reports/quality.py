"""The sections of the report about quality: the verdict, for whom the model fails, what a list does at worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys_embed.reports import charts
from recsys_embed.reports.facts import Groups, Lists
from recsys_embed.reports.markup import Markup, element, join, table
from recsys_embed.reports.words import BASELINES, Terms, between, of_100, one_hit, per_100
from recsys_embed.state.fitted import FittedState
from recsys_embed.state.verdict import Verdict, baseline_label, counted, verdict

_NAMES = {"head": "bestsellers", "mid": "in between", "tail": "rare"}


def p(*children: str, **attributes: object) -> Markup:
    """Return a paragraph."""
    return element("p", *children, **attributes)


def verdict_section(state: FittedState, terms: Terms) -> list[Markup]:
    """Return what the model does better than simple lists, and by how much."""
    metrics = state.metadata.get("metrics") or {}
    test, found = metrics.get("test"), verdict(metrics)
    if not test or not test.get("users"):
        return [
            p(
                element("strong", "Nobody knows how good the lists are: "),
                f"no {terms.rating} was kept back for a test when this model was trained. Train it with a test part to "
                "find out.",
                class_="verdict",
            )
        ]
    out = [p(element("strong", "Verdict: "), found.sentence, class_="verdict")] if found else []
    if found is None:
        out.append(
            p("The model was tested, but not compared with a baseline, so there is no verdict.", class_="verdict")
        )
    users, baselines = test["users"], metrics.get("baselines") or {}
    kept = f"{counted(test['rows'], terms.rating)} of {counted(users, terms.user)}"
    out.append(
        p(
            f"For the test, {kept} were kept back: the model did not see them. It then made a list of 10 for each "
            f"{terms.user}. A list is a ",
            element("strong", "hit"),
            f" if at least one of its 10 is among what was kept back. {one_hit(test['hit_at_10'], users)} lists were "
            f"hits ({of_100(test['hit_at_10'])} of 100){_instead(baselines)}.",
        )
    )
    out.append(_comparison_table(test, baselines))
    out += _difference_texts(baselines, found)
    if "mae" in test:
        out.append(
            p(
                f"When it predicts a rating, it is off by {test['mae']:.2f} on average (the root of the mean square, "
                f"which punishes large errors, is {test['rmse']:.2f})."
            )
        )
    return out


def _instead(baselines: Mapping[str, Any]) -> str:
    values = baselines.get("popularity")
    return f", instead of {of_100(values['hit_at_10'])} of 100 with bestsellers" if values else ""


def _comparison_table(test: dict[str, Any], baselines: Mapping[str, Any]) -> Markup:
    names = ("", "lists with a hit, of 100", "", "right items in a list of 10", "NDCG, from 0 to 1")
    rows = []
    for name, values in {"this model": test, **baselines}.items():
        kind = "model" if values is test else "other"
        cells = (of_100(values["hit_at_10"]), f"{10 * values['precision_at_10']:.2f}", f"{values['ndcg_at_10']:.3f}")
        rows.append((baseline_label(name), cells[0], charts.bars((values["hit_at_10"], kind)), *cells[1:]))
    notes = (
        element("li", element("strong", baseline_label(name)), ": ", BASELINES.get(name, "another simple method"), ".")
        for name in baselines
    )
    ndcg = "NDCG also counts how many items are right and whether they stand at the top; 1 would be a perfect list."
    return join(table("The model and simple methods (baselines) in the same test", names, rows, (1, 3, 4)), p(ndcg),
                element("ul", notes))  # fmt: skip


def _difference_texts(baselines: Mapping[str, Any], found: Verdict | None) -> list[Markup]:
    """Say how sure the differences are: to bestsellers in lists with a hit, and to the best baseline in NDCG."""
    out = []
    hit = baselines.get("popularity", {}).get("hit_difference")
    if hit:
        sure = "" if hit["clear"] else " This difference is not clear: it may be chance."
        out.append(
            p(
                f"Against bestsellers that is {per_100(hit['mean'])} of 100 lists. Other users of the same kind would "
                f"give a slightly different number: with 95 % confidence the difference is "
                f"{between(hit['low'], hit['high'])}.{sure}"
            )
        )
    if found is None:
        return out
    value = baselines[found.baseline]["ndcg_at_10"]
    share = f", {abs(found.mean) / value:.0%} of its {value:.3f}" if value else ""
    text = f"Against {found.label}, the best baseline, the difference in NDCG is {found.mean:+.4f}{share}; with 95 % "
    text += f"confidence it is between {found.low:+.4f} and {found.high:+.4f}. "
    if found.clear:
        text += "Zero is outside of that range: chance alone would hardly do that."
    else:
        text += "The test cannot tell which of the two is better."
    measured = {n: v["difference"] for n, v in baselines.items() if v.get("difference")}
    ends = [end for d in measured.values() for end in (d["low"], d["high"])]
    margin = 0.05 * (max(0.0, *ends) - min(0.0, *ends)) or 1e-6
    scale = min(0.0, *ends) - margin, max(0.0, *ends) + margin
    rows = [
        (baseline_label(n), charts.interval(d["low"], d["mean"], d["high"], scale),
         f"{d['low']:+.4f} to {d['high']:+.4f}", "yes" if d["clear"] else "no")
        for n, d in measured.items()
    ]  # fmt: skip
    names = ("against", "right of the line: this model is better", "95 % range", "clear")
    return [*out, p(text), table("How sure the differences in NDCG are", names, rows, (2,))]


def failures_section(state: FittedState, groups: Groups, terms: Terms) -> list[Markup]:
    """Return for whom the model fails: users with few ratings, new users, rare and cold items."""
    metrics = state.metadata.get("metrics") or {}
    out = [
        *_activity(groups, terms),
        *_new_users(metrics, terms),
        *_items(groups, terms),
        *_cold(state, metrics, terms),
    ]
    return out or [p("Nothing was measured by group, since there was no test.")]


def _activity(groups: Groups, terms: Terms) -> list[Markup]:
    rows, names = [], [f"{terms.rating}s of the {terms.user}", f"tested {terms.user}s", "hits, of 100 lists", ""]
    if groups.popularity is not None:
        names.append("bestsellers")
    popular_rows = groups.popularity or [{}] * len(groups.by_activity)
    for row, other in zip(groups.by_activity, popular_rows, strict=True):
        if not row["users"]:
            continue
        hit, popular = row["hit"], other.get("hit")
        cells = [row["name"], f"{row['users']:,}", of_100(hit), charts.bars((hit, "model"), (popular, "other"))]
        rows.append(cells + ([] if popular is None else [of_100(popular)]))
    if not rows:
        return []
    measured = [row for row in groups.by_activity if row["users"]]
    weakest = min(measured, key=lambda row: row["hit"])
    text = f"Fewest hits: {terms.user}s with {weakest['name']} {terms.rating}s, {of_100(weakest['hit'])} of 100 lists. "
    text += "Whoever has much also had more kept back, and more is easier to hit: compare a group with bestsellers in "
    text += "the same group rather than with another group."
    if groups.popularity is not None:
        pairs = zip(measured, (row for row in groups.popularity if row["users"]), strict=True)
        text += _where_worse([row["name"] for row, other in pairs if row["hit"] < other["hit"]], len(measured), terms)
    caption = f"Lists with a hit, by how many {terms.rating}s the {terms.user} had"
    caption += " (upper bar: this model; lower bar: bestsellers)" if groups.popularity is not None else ""
    return [table(caption, names, rows, (1, 2, 4)), p(text)]


def _where_worse(worse: list[str], n_groups: int, terms: Terms) -> str:
    """Say in which groups bestsellers have more hits."""
    if not worse:
        return " Here the model has at least as many hits in every group."
    if len(worse) == n_groups:
        return " Here bestsellers do better in every group."
    return f" Here bestsellers do better for {terms.user}s with {' or '.join(worse)} {terms.rating}s."


def _new_users(metrics: Mapping[str, Any], terms: Terms) -> list[Markup]:
    new, known = metrics.get("new_users"), metrics.get("known_users")
    if not new or not known:
        text = (
            f"A new {terms.user}, of whom nothing is known, gets the most popular items; a few likes are enough for a "
        )
        return [p(f"{text}list of their own. How good these are, this test does not say.")]
    own, popular = new["ndcg_at_10"]["this model"], new["ndcg_at_10"].get("popularity")
    text = f"{counted(new['users'], 'tested ' + terms.user)} had no {terms.rating} in the training: they get what is "
    text += f"popular. NDCG {own:.3f} for them"
    text += f" (bestsellers {popular:.3f})" if popular is not None else ""
    return [p(f"{text}, and {known['ndcg_at_10']['this model']:.3f} for the {known['users']:,} others.")]


def _items(groups: Groups, terms: Terms) -> list[Markup]:
    rows = [
        (_NAMES.get(row["name"], row["name"]), f"{row['items']:,}", of_100(row["train"]), of_100(row["shown"]),
         charts.bars((row["train"], "other"), (row["shown"], "model")),
         "" if row["recall"] is None else of_100(row["recall"]))
        for row in groups.by_popularity
    ]  # fmt: skip
    if not rows:
        return []
    names = (terms.item + "s", "how many", f"of 100 {terms.rating}s", "of 100 places in lists", "", "found, of 100")
    caption = f"Bestsellers and rare {terms.item}s: a third of the {terms.rating}s each (upper bar: {terms.rating}s; "
    caption += "lower bar: places in lists)"
    text = f"Found: of what was kept back of such {terms.item}s, the share that was in the {terms.user}'s list of 10. "
    tail = groups.by_popularity[-1]
    if tail["recall"] is not None and tail["shown"] < tail["train"]:
        text += f"Rare {terms.item}s are in lists less often than they are rated: this model does little for them."
    return [table(caption, names, rows, (1, 2, 3, 5)), p(text)]


def _cold(state: FittedState, metrics: Mapping[str, Any], terms: Terms) -> list[Markup]:
    unrated, cold, out = int((state.item_counts == 0).sum()), metrics.get("cold"), []
    if unrated:
        text = f"{counted(unrated, terms.item)} had no {terms.rating} in the training. "
        if state.content_model is None:
            text += "The model knows nothing of them, since it was trained without descriptions."
        else:
            text += "The model goes by their descriptions."
        out.append(p(text))
    if cold and cold.get("users"):
        others = ", ".join(f"{baseline_label(n)} {v['ndcg_at_10']:.3f}" for n, v in cold["baselines"].items())
        text = f"Ranked among themselves, {counted(cold['items'], 'new ' + terms.item)} reach an NDCG of "
        out.append(p(f"{text}{cold['ndcg_at_10']:.3f}" + (f" ({others})." if others else ".")))
    return out


def worst_section(state: FittedState, lists: Lists, terms: Terms) -> list[Markup]:
    """Return what it costs to be wrong: lists with nothing relevant, coverage, concentration."""
    metrics, out = state.metadata.get("metrics") or {}, []
    test, popular = metrics.get("test"), (metrics.get("baselines") or {}).get("popularity")
    if test and test.get("users"):
        text = f"{of_100(1 - test['hit_at_10'])} of 100 lists have nothing that was kept back"
        text += f" (bestsellers: {of_100(1 - popular['hit_at_10'])} of 100)" if popular else ""
        out.append(
            f"{text}. Not all of these are bad: what a {terms.user} never met cannot have been kept back. But nothing "
            "shows that they help."
        )
    total = int((state.item_counts > 0).sum())
    listed = round(lists.coverage * total)
    never = f"; {counted(total - listed, 'other')} never" if listed < total else ""
    out.append(
        f"{listed:,} of {counted(total, terms.item)} with {terms.rating}s are in at least one list{never}. "
        f"{counted(lists.half, terms.item)} fill half of all places."
    )
    n_top, ratings, places = lists.top
    more = (
        "lists lean on bestsellers more than the "
        if places > ratings
        else "lists lean on bestsellers no more than the "
    )
    out.append(
        f"The most rated tenth ({counted(n_top, terms.item)}) has {of_100(ratings)} of 100 {terms.rating}s and "
        f"{of_100(places)} of 100 places: {more}{terms.user}s themselves do."
    )
    out.append(
        f"A list never has what the {terms.user} has already" if state.hidden_items is None else
        f"Lists leave out what the {terms.user} has finished with, and may repeat what was only looked at"
    )  # fmt: skip
    out[-1] += "."
    return [element("ul", (element("li", text) for text in out)),
            p(f"From lists for {counted(lists.users, terms.user)}.", class_="note")]  # fmt: skip
