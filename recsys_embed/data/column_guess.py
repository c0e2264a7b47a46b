"""Guess which columns hold the users, the items, the ratings and the times, by their names and by what they hold."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable

import polars as pl

from recsys_embed.data.date_texts import ISO, read_dates
from recsys_embed.data.time_formats import are_plausible, find_format, plain_times
from recsys_embed.errors import DataError

log = logging.getLogger("recsys_embed")

# Names by which columns are recognised besides the canonical ones, in lower case and without separators. A name with
# "id", "uuid", "key", "no", "number" or "code" at its end counts as well.
_IDS = {
    "user": frozenset(
        "user visitor customer cust client account member reviewer buyer shopper subscriber player reader listener "
        "viewer guest profile uid person kunde kunden nutzer benutzer besucher cliente utilisateur usuario".split()
    ),
    "item": frozenset(
        "item product prod sku isbn asin parentasin movie film show series song track artist album article news book "
        "business restaurant venue place poi hotel game app video anime recipe beer wine course content listing "
        "stockcode ean upc gtin iid artikel produkt produit producto articulo artículo".split()
    ),
}
_NAMES = {
    "rating": frozenset(
        "rating score stars star overall grade ratingvalue ratingscore reviewscore reviewrating reviewoverall "
        "reviewstars userrating userscore bookrating movierating starrating bewertung sterne".split()
    ),
    "event": frozenset(
        "event eventtype eventname action actiontype behavior behaviortype aktion aktionstyp aktionsart ereignis "
        "ereignistyp ereignisart ereignisname evenement événement typeevenement typeévénement typedévénement evento "
        "tipoevento tipodeevento accion acción tipoaccion tipodeaccion tipodeacción".split()
    ),
    "time": frozenset(
        "timestamp time date datetime ts eventtime eventtimestamp eventdate createdat created createdtime "
        "unixreviewtime unixtime epoch timestampms timestampunix unixtimestamp zeitpunkt zeitstempel zeit datum "
        "bestelldatum kaufdatum horodatage fecha".split()
    ),
}
_ID_SUFFIX = re.compile(r"(?:(?:uu)?id|key|no|nr|nummer|number|code|1[03])$")
# Times of what a user did; others, of releases and births, are facts of items and users.
_TIME_NAME = re.compile(
    r"(?:[a-z]+ed|bought|sent|seen|sold|paid)at$|(?:order|purchase|invoice|review|rating|visit|click|event|sale|"
    r"transaction|trans|play|listen|watch|view|checkin)(?:date|time|timestamp|datetime|ts|dt)$"
)
# Amounts of what a user did: no opinions, but they may weigh.
_AMOUNT = re.compile(
    r"^(?:playtime(?:forever|minutes|hours)?|hours(?:played)?|minutes|plays?|playcounts?|listens?|counts?|quantity|qty|"
    r"amount|views|clicks|visits|times|duration|watchtime|weight|menge|anzahl|betrag|umsatz|montant|cantidad|quantite|"
    r"quantité|(?:unit|total|sales?|net|gross|list)?(?:price|cost|revenue|total|discount|tax)|(?:einzel|gesamt|stück|"
    r"stueck|netto|brutto)?preis|rabatt|prix(?:unitaire|total)?|precio(?:unitario|total)?|importe|descuento|remise)$"
)

_SAMPLE = 20_000  # rows that are looked at
_MAX_LEVELS = 21  # distinct values of a rating, such as 0, ½, … 10
_OPTIONS = {"user": "--user-col", "item": "--item-col", "rating": "--rating-col", "time": "--time-col"}


def normalized(name: str) -> str:
    """Return a column's name in lower case, without separators and without the name of its table."""
    return re.sub(r"[^0-9a-z\u0080-\U0010ffff]+", "", name.strip().lower().rpartition(".")[2])


def usual_columns(columns: list[str], role: str) -> list[str]:
    """Return the columns whose names are usual for a role; of `product` and `product_id`, only the latter."""
    found = [name for name in columns if _is_usual(normalized(name), role)]
    if role in _IDS:
        ids = {_stem(normalized(name)): name for name in found if normalized(name) not in _IDS[role]}
        found = [name for name in found if ids.get(_stem(normalized(name)), name) == name]
    elif role == "time" and len(found) > 1:  # event_time and shipped_at: the name is clearer than the pattern
        found = [name for name in found if normalized(name) in _NAMES["time"]] or found
    return found


def _is_usual(name: str, role: str) -> bool:
    if role in _IDS:
        return name in _IDS[role] or (_stem(name) != name and _stem(name) in _IDS[role])
    return role in _NAMES and (name in _NAMES[role] or (role == "time" and bool(_TIME_NAME.search(name))))


def _stem(name: str) -> str:
    return _ID_SUFFIX.sub("", name)


def is_usual(name: str) -> bool:
    """Return whether a name is usual for any role."""
    return any(_is_usual(normalized(name), role) for role in (*_IDS, "rating", "time"))


def is_event_name(name: str) -> bool:
    """Return whether a name is usual for a column of types of events."""
    return normalized(name) in _NAMES["event"]


def guess_by_name(data: pl.DataFrame | list[str], role: str) -> list[str]:
    """Return the columns whose names are usual for a role; if they are several, nothing says which it is.

    data: a frame, or names alone. Of a frame, only columns of numbers can be ratings, and only of times, times, both
        without gaps.
    """
    columns = data.columns if isinstance(data, pl.DataFrame) else data
    found = usual_columns(columns, role)
    if isinstance(data, pl.DataFrame) and role in ("rating", "time"):
        fits = _is_number if role == "rating" else _is_time
        found = [name for name in found if fits(data[name])]
        gaps = [name for name in found if data[name].null_count()]
        if gaps:
            log.info("column %s has missing values and is left out; %s uses it", gaps[0], _OPTIONS[role])
        found = [name for name in found if name not in gaps]
    return found


def undecided(candidates: dict[str, list[str]]) -> DataError:
    """Return the error for roles that several columns may have. candidates: those of each."""
    questions, options, named = [], [], set()
    for role, columns in candidates.items():
        questions.append(f"the {role}: {' or '.join(repr(name[:40]) for name in columns[:4])}")
        name = next((name for name in columns if name not in named), columns[0])
        named.add(name)
        options.append(f"{_OPTIONS[role]} {name}")
    return DataError(
        f"which column holds {'; '.join(questions)}? {' '.join(options)} decide{'s' * (len(options) == 1)}"
    )


def guess_by_content(
    frame: pl.DataFrame, taken: Iterable[str], missing: list[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return columns for users, items, ratings and times by what they hold, where their names say nothing; and the
    columns of the roles for which more would do than are needed.

    taken: the columns that hold something else. missing: the roles that need one, the users or the items among them.
    Users come before items. Where fewer columns do than are needed, there is nothing.
    """
    taken = set(taken)
    rest = [c for c in frame.columns if c not in taken and normalized(c) and not is_amount(c)]
    sample = frame.select(rest).head(_SAMPLE)
    times = [c for c in rest if _is_time(sample[c], named=False)]
    levels = [c for c in rest if c not in times and _is_number(sample[c]) and _is_small_range(sample[c])]
    ids = [c for c in rest if c not in (*times, *levels) and _is_id(sample[c])]
    sides: list[str] = [role for role in ("user", "item") if role in missing]
    if len(ids) < len(sides):
        return {}, {}
    open_: dict[str, list[str]] = dict.fromkeys(sides, ids) if len(ids) > len(sides) else {}
    found: dict[str, str] = {} if open_ else dict(zip(sides, ids, strict=True))
    for role, candidates in (("rating", levels), ("time", times)):
        if role in missing and len(candidates) > 1:
            open_[role] = candidates
        elif role in missing and candidates:
            found[role] = candidates[0]
    return found, open_


def is_amount(name: str) -> bool:
    """Return whether a name is that of an amount, such as a time played."""
    return bool(_AMOUNT.match(normalized(name)))


def negative_amounts(
    frame: pl.DataFrame, used: Collection[str], where: pl.Expr | None = None
) -> tuple[str, int] | None:
    """Return the column of amounts, such as quantity or price, that has most numbers below 0, and how many they are;
    None where there are none.

    used: columns that hold something else, or that a setting names. where: which rows count; None for all.
    """
    amounts = [c for c in frame.select(pl.selectors.numeric(), pl.selectors.string()).columns if is_amount(c)]
    below = [(pl.col(name).cast(pl.Float64, strict=False) < 0).alias(name) for name in amounts if name not in used]
    rows = pl.lit(value=True) if where is None else where
    counts = frame.select((is_below & rows).sum() for is_below in below).row(0, named=True) if below else {}
    name = max(counts, key=counts.__getitem__, default="")
    return (name, counts[name]) if counts.get(name) else None


def _numbers(column: pl.Series) -> pl.Series | None:
    """Return the present values of a column as numbers, or None where one is none."""
    present = column.head(_SAMPLE).drop_nulls()
    if column.dtype.is_numeric():
        return present.cast(pl.Float64)
    if column.dtype != pl.String or not len(present):
        return None
    numbers = present.cast(pl.Float64, strict=False)
    return None if numbers.null_count() else numbers


def _is_number(column: pl.Series) -> bool:
    return column.dtype == pl.Boolean or _numbers(column) is not None


def _is_small_range(column: pl.Series) -> bool:
    numbers = _numbers(column)
    if numbers is None or not len(numbers) or numbers.is_nan().any():
        return False
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    return numbers.n_unique() <= _MAX_LEVELS and -10 <= low and high <= 100


def _is_time(column: pl.Series, named: bool = True) -> bool:
    """Return whether a column holds dates, in any form, or numbers of seconds (milli-, …) since 1970 from 1990 on.

    named: its name says so too. Otherwise 05-11-42 may be an article, and years of two digits must be those of data.
    """
    column = plain_times(column)
    if column.dtype.is_temporal():
        return True
    numbers = _numbers(column)
    if numbers is not None:
        in_seconds = bool(len(numbers)) and bool(((numbers > 6e8) & (numbers < 5e18)).all())
        return in_seconds or find_format(column.head(_SAMPLE)).format is not None
    if column.dtype != pl.String:
        return False
    present = column.head(200).drop_nulls()
    form = find_format(present).format or ISO
    if not len(present) or read_dates(present, form).null_count():
        return False
    return named or "%y" not in form or are_plausible(read_dates(column, form))


def _is_id(column: pl.Series) -> bool:
    """Return whether a column may hold ids: integers or short text that differ, and of which some come again."""
    present = column.drop_nulls()
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary)):
        return False
    if column.dtype == pl.String:
        numbers = _numbers(present)
        if numbers is not None and (numbers % 1 != 0).any():
            return False
        if len(present) and float(present.str.len_chars().mean()) > 64:  # type: ignore[arg-type]
            return False
    return 1 < present.n_unique() < len(present)
