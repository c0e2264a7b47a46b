"""The made-up shop, and the guide that goes with it, command by command."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest
from worlds import recsys_here

from recsys_embed.errors import SettingError
from recsys_embed.recommender import Recommender
from recsys_embed.sources.shop import generate
from recsys_embed.tracking.model_registry import version_of

GUIDE = Path(__file__).parents[1] / "docs" / "your-shop.md"


def test_a_shop_is_the_same_every_time_and_holds_together():
    shop, again = generate(40, 20, 3), generate(40, 20, 3)
    assert shop.events.equals(again.events) and shop.products.equals(again.products)
    assert not shop.events.equals(generate(40, 20, 3, seed=1).events)
    assert set(shop.events["event"]) <= {"view", "cart", "purchase", "return"} and shop.products.height == 20
    known = shop.events.join(shop.products, on="sku")
    assert known.height == shop.events.height and shop.events["time"].is_sorted()
    assert (known["time"].str.slice(0, 10) >= known["added"]).all(), "nobody sees what is not there yet"
    pairs = ["customer", "sku"]
    bought, put = (shop.events.filter(pl.col("event") == name).select(pairs) for name in ("purchase", "cart"))
    assert bought.join(put, on=pairs, how="anti").is_empty()
    for sizes in ((5, 20, 3), (40, 5, 3), (40, 20, 1)):
        with pytest.raises(SettingError, match="at least"):
            generate(*sizes)


def test_a_made_up_shop_never_takes_the_place_of_a_real_one(tmp_path):
    command = "data", "make", "shop", "--customers", "50", "--products", "30", "--weeks", "3"
    recsys_here(*command, cwd=tmp_path)
    recsys_here(*command, cwd=tmp_path)  # the same again
    (tmp_path / "shop" / "events.csv").write_text("customer,sku\n1,2\n")
    (tmp_path / "shop" / "products.csv").unlink()
    refused = recsys_here(*command, cwd=tmp_path, code=2)
    assert "shop/events.csv is there already, and is another: name another folder by --out" in refused.stderr
    assert (tmp_path / "shop" / "events.csv").read_text() == "customer,sku\n1,2\n"
    assert not (tmp_path / "shop" / "products.csv").exists(), "all or nothing"
    recsys_here(*command, "--out", "other", cwd=tmp_path)


@pytest.mark.slow
def test_the_guide_runs(tmp_path):
    text = re.sub(r"<!-- not run: .*? -->\n```sh\n.*?```", "", GUIDE.read_text(), flags=re.S)
    commands = [
        shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()
    ]
    commands = [words[1:] for words in commands if words[0] == "recsys"]
    assert [words[0] for words in commands] == [
        "data",
        "data",
        "train",
        "report",
        "recommend",
        "recommend",
        "retrain",
        "train",
    ]
    small = {
        "data make": ["--customers", "150", "--products", "60", "--weeks", "6"],
        "train": ["--epochs", "6", "--no-map", "--allow-worse"],
        "retrain": ["--allow-worse"],
    }
    for words in commands:
        added = small.get(" ".join(words[:2]), small.get(words[0], []))
        words = [word.replace("C100042", "C100007") for word in words]
        recsys_here(*words, *added, cwd=tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert version_of("models:/shop@champion", store) == "2" and version_of("models:/shop@challenger", store) == "3"
    assert (tmp_path / "report.html").stat().st_size > 10_000
    newest = max((tmp_path / "models").iterdir(), key=lambda folder: folder.stat().st_mtime)
    model = Recommender.load(newest)
    week = pl.read_csv(tmp_path / "shop" / "next-week.csv")
    assert "production" in model.metadata and set(week["sku"]) <= set(model.items.series)
    lists = pl.read_csv(tmp_path / "lists.csv")
    stock = pl.read_csv(tmp_path / "shop" / "products.csv").filter(pl.col("stock") == 0)["sku"]
    assert lists.height > 100 and lists.columns[1] == "item_1" and not set(lists["item_1"]) & set(stock)
