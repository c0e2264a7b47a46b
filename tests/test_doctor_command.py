"""The data doctor on the command line and in a training: what it says, and what it repairs."""

import contextlib
import json
import os
import re
import sqlite3
import zipfile
from dataclasses import replace

import polars as pl
import pytest
from spoilt import RATINGS, changed, events, plus
from worlds import recsys_here, small

from recsys_embed.config.settings import DataConfig, RunConfig
from recsys_embed.data.dataset import Dataset
from recsys_embed.data.ratings import Ratings
from recsys_embed.doctor import CODES
from recsys_embed.doctor.codes import SEVERITIES
from recsys_embed.errors import DataError
from recsys_embed.experiment.run import run_experiment
from recsys_embed.sources.load import load_dataset

# The command


def broken(folder):
    frame = changed("rating", (1, 2), None)
    frame = changed("timestamp", (9,), lambda t: t * 1000, frame)
    frame = changed("user_id", (20,), lambda u: f"{u}.0", changed("user_id", (21,), "Zoe\u0308", frame))
    pl.concat([frame, frame[[5]]]).write_csv(folder / "broken.csv")


def run_check(folder, *args, code=0, dataset="broken.csv"):
    return json.loads(recsys_here("data", "check", "--dataset", dataset, "--json", *args, cwd=folder, code=code).stdout)


def test_the_command_ends_with_3_if_there_are_errors(tmp_path):
    broken(tmp_path)
    facts = run_check(tmp_path, code=3)
    assert [f["code"] for f in facts["findings"]][:2] == ["D105", "D304"] and facts["ratings"] == 3998
    ranks = [SEVERITIES.index(f["severity"]) for f in facts["findings"]]
    assert ranks == sorted(ranks)
    assert {"code", "severity", "count", "message", "examples", "remedy", "is_fixed"} == set(facts["findings"][0])
    assert [f["code"] for f in run_check(tmp_path, "--only", "D1,d304", code=3)["findings"]] == ["D105", "D304", "D101"]
    assert run_check(tmp_path, "--ignore", "D105,D304")["findings"][0]["severity"] == "warning"
    for option in ("--only", "--ignore"):
        assert "D9" in recsys_here("data", "check", option, "D9", cwd=tmp_path, code=2).stderr
    printed = recsys_here("data", "check", "--dataset", "broken.csv", cwd=tmp_path, code=3).stdout
    assert "error D105: 2 rows have no rating that is a finite number, e.g. line 3: nothing" in printed
    assert "2 errors, 2 warnings; docs/data-check.md explains each" in printed


def test_what_is_fixed_is_clean_and_the_input_stays(tmp_path):
    broken(tmp_path)
    before = (tmp_path / "broken.csv").read_bytes()
    for name in ("fixed.csv", "fixed.parquet"):
        changes = run_check(tmp_path, "--fix", name)["fixed"]["changes"]
        assert len(changes) == 4, changes
        after = run_check(tmp_path, dataset=name)
        assert not [f for f in after["findings"] if CODES[f["code"]].is_fixed] and after["ratings"] == 3998
    assert (tmp_path / "broken.csv").read_bytes() == before
    fixed = pl.read_parquet(tmp_path / "fixed.parquet")
    assert fixed.equals(pl.read_csv(tmp_path / "fixed.csv", infer_schema=False).cast(fixed.schema))
    assert fixed["timestamp"].cast(pl.Int64).max() < 2e9 and "Zo\u00eb" in fixed["user_id"].to_list()
    (tmp_path / "here").mkdir()
    for out in ("broken.csv", "here/../broken.csv", "fixed.txt"):
        recsys_here("data", "check", "--dataset", "broken.csv", "--fix", out, cwd=tmp_path, code=2)
    assert (tmp_path / "broken.csv").read_bytes() == before and not (tmp_path / "fixed.txt").exists()


READ = {
    "the ratings": (["--dataset", "r.csv"], "r.csv"),
    "a part of a folder": (["--dataset", "parts"], "parts/one.csv"),
    "a part of a pattern": (["--dataset", "parts/o*.csv"], "parts/one.csv"),
    "an address": (["--dataset", "file://{}/r.csv"], "r.csv"),
    "a database": (["--dataset", "sqlite:///{}/shop.csv#orders"], "shop.csv"),
    "a member of an archive": (["--dataset", "z.zip/r.csv"], "z.zip"),
    "further ratings": (["--dataset", "r.csv", "--extra-ratings", "parts/one.csv"], "parts/one.csv"),
    "the second of them": (["--dataset", "r.csv", "--extra-ratings", "r2.csv; parts/one.csv"], "parts/one.csv"),
    "items": (["--dataset", "r.csv", "--items", "items.csv"], "items.csv"),
    "test ratings": (["--dataset", "r.csv", "--test", "t.csv"], "t.csv"),
    "validation ratings": (["--dataset", "r.csv", "--valid", "t.csv"], "t.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("spelled", ["as it is", "the long way", "a link", "another name"])
def test_nothing_that_is_read_is_written_over(tmp_path, name, spelled):
    (tmp_path / "parts").mkdir()
    for file in ("r.csv", "r2.csv", "t.csv", "parts/one.csv"):
        RATINGS[:200].write_csv(tmp_path / file)
    pl.DataFrame({"item_id": ["a"], "title": ["A"]}).write_csv(tmp_path / "items.csv")
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.csv")) as shop:
        shop.execute("CREATE TABLE orders (user_id, item_id)")
        shop.commit()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "r.csv", "r.csv")
    options, read = READ[name]
    out = tmp_path / read
    if spelled == "a link" or read == "z.zip":  # what is written must end in .csv
        (out := tmp_path / "link.csv").symlink_to(tmp_path / read)
    elif spelled == "the long way":
        out = tmp_path / "parts" / ".." / read
    elif spelled == "another name":
        os.link(tmp_path / read, out := tmp_path / "other.csv")
    before = (tmp_path / read).read_bytes()
    said = recsys_here(
        "data", "check", *(o.format(tmp_path) for o in options), "--fix", str(out), cwd=tmp_path, code=2
    ).stderr
    assert said.count("\n") == 1 and "name another file" in said and options[-2 if len(options) > 2 else 0] in said
    assert (tmp_path / read).read_bytes() == before and (not out.is_symlink() or out.samefile(tmp_path / read))


MIXED = ["user,item,rating,time", *(f"u{n % 20},i{n % 9},{1 + n % 5},{1 + n % 28:02d}/03/2021" for n in range(60))]


def test_rows_that_fit_both_orders_are_counted_and_no_repair_hides_them(tmp_path):
    lines = [*MIXED, "u1,i8,5,03/25/2021", "u2,i8,5,03/26/2021"]
    (tmp_path / "mixed.csv").write_text("\n".join(lines) + "\n")
    both = sum(int(line.split(",")[3][:2]) <= 12 and line.split(",")[3][:2] != "03" for line in MIXED[1:])
    found = {f["code"]: f for f in run_check(tmp_path, dataset="mixed.csv", code=3)["findings"]}
    assert f"2 times written as %m/%d/%Y, not as the others; {both} more fit both orders" in found["D308"]["message"]
    assert not found["D308"]["is_fixed"] and found["D106"]["is_fixed"]
    fix = "data", "check", "mixed.csv", "--fix", "out.csv"
    done = recsys_here(*fix, cwd=tmp_path, code=3)
    assert done.stderr.splitlines()[-1].startswith("error: out.csv is written, and errors remain")
    assert "D308" in done.stderr.splitlines()[-1] and "D106" not in done.stderr.splitlines()[-1]
    assert pl.read_csv(tmp_path / "out.csv").height == 60
    assert run_check(tmp_path, "--fix", "out.csv2.csv", dataset="mixed.csv", code=3)["fixed"]["remaining"] == ["D308"]
    recsys_here(*fix, "--time-format", "%d/%m/%Y", cwd=tmp_path)
    named = run_check(tmp_path, "--time-format", "%d/%m/%Y", "--fix", "out.csv", dataset="mixed.csv")
    assert named["fixed"]["remaining"] == [], "the option says what those mean that fit both"


def test_the_exit_code_of_a_repair_is_that_of_the_file_it_writes(tmp_path):
    broken = ["user,item,rating", *(f"u{n},i{n % 3},{'bad' if n else 5}" for n in range(5))]
    broken += [f"u0,i{n},4" for n in range(1, 9)]
    (tmp_path / "r.csv").write_text("\n".join(broken) + "\n")
    facts = run_check(tmp_path, "--fix", "out.csv", dataset="r.csv", code=3)
    assert facts["fixed"]["remaining"] == ["D204"], "who is left is one user alone"
    (tmp_path / "items.csv").write_text("item_id,title\ni0,A, B\ni1,C\n")
    (tmp_path / "clean.csv").write_text("\n".join(LINES) + "\n")
    facts = run_check(tmp_path, "--items", "items.csv", "--fix", "out.csv", dataset="clean.csv", code=3)
    assert facts["fixed"]["remaining"] == ["D112"] and not facts["findings"][0]["is_fixed"]
    shared = [*LINES[:9], "u1,i2,3,1600000900"]
    (tmp_path / "held.csv").write_text("\n".join(shared) + "\n")
    facts = run_check(tmp_path, "--test", "held.csv", "--fix", "out.csv", dataset="clean.csv")
    assert facts["findings"][0]["code"] == "D701" and facts["findings"][0]["is_fixed"]
    pairs = {line.rsplit(",", 2)[0]: line for line in LINES[1:] if not line.startswith("u1,")}
    (tmp_path / "others.csv").write_text("\n".join([LINES[0], *pairs.values()]) + "\n")
    facts = run_check(tmp_path, "--test", "others.csv", "--fix", "out.csv", dataset="clean.csv", code=3)
    assert "D204" not in {f["code"] for f in facts["findings"]} and facts["fixed"]["remaining"] == ["D204"]
    both = run_check(
        tmp_path, "--test", "held.csv", "--valid", "held.csv", "--fix", "o.csv", dataset="clean.csv", code=3
    )
    assert [f["is_fixed"] for f in both["findings"] if f["code"] == "D701"].count(False) == 1


def test_a_fixed_training_file_has_no_row_of_the_test(tmp_path):
    RATINGS[:3500].write_csv(tmp_path / "train.csv")
    RATINGS[3490:].write_csv(tmp_path / "test.csv")
    held_out = "--test", "test.csv"
    assert run_check(tmp_path, *held_out, dataset="train.csv", code=3)["findings"][0]["code"] == "D701"
    run_check(tmp_path, *held_out, "--fix", "fixed.csv", dataset="train.csv")
    assert run_check(tmp_path, *held_out, dataset="fixed.csv")["ratings"] == 3490


def test_clean_data_are_fixed_to_themselves(tmp_path):
    RATINGS.write_parquet(tmp_path / "clean.parquet")
    assert run_check(tmp_path, "--fix", "out.parquet", dataset="clean.parquet")["fixed"]["changes"] == []
    assert pl.read_parquet(tmp_path / "out.parquet").equals(RATINGS)


def test_events_that_happen_twice_without_a_time_are_kept(tmp_path):
    log = events().drop("time")
    pl.concat([log, log[[0]].with_columns(user=None)], how="vertical_relaxed").write_csv(tmp_path / "log.csv")
    changes = run_check(tmp_path, "--event-col", "kind", "--fix", "out.csv", dataset="log.csv")["fixed"]["changes"]
    assert changes == ["left out 1 row that cannot be read"]
    assert pl.read_csv(tmp_path / "out.csv").equals(events().drop("time"))


def test_what_happens_twice_on_a_day_is_kept(tmp_path):
    day = events().with_columns(pl.from_epoch("time").dt.date().cast(pl.String))
    twice = pl.concat([day, day[:5]])
    twice.write_csv(tmp_path / "log.csv")
    for options in (("--event-col", "kind"), ()):
        found = run_check(tmp_path, *options, "--fix", "out.csv", dataset="log.csv")
        assert "D101" not in {f["code"] for f in found["findings"]}
        assert pl.read_csv(tmp_path / "out.csv").equals(twice)


@pytest.mark.parametrize("seconds", [60, 3600, 1])
@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_what_happens_twice_in_a_minute_is_kept_and_in_a_second_is_a_copy(tmp_path, seconds, is_log, text):
    log = events().with_columns(pl.col("time") // seconds * seconds).unique(maintain_order=True)
    log = log.with_columns(pl.from_epoch("time").dt.strftime("%d.%m.%Y %H:%M:%S")) if text else log
    twice = pl.concat([log, log[:7]])
    twice.write_csv(tmp_path / "log.csv")
    options = ("--event-col", "kind") if is_log else ()
    facts = run_check(tmp_path, *options, "--fix", "out.csv", dataset="log.csv")
    found = {f["code"]: f for f in reversed(facts["findings"])}
    if seconds == 1:
        assert found["D101"]["count"] == 7 and pl.read_csv(tmp_path / "out.csv").equals(log)
    else:
        assert "D101" not in found and pl.read_csv(tmp_path / "out.csv").equals(twice)
        unit = "minutes" if seconds == 60 else "hours"
        said = [f for f in facts["findings"] if f["code"] == "D103" and f"of {unit}" in f["message"]]
        assert [f["count"] for f in said] == [7] and "may have happened again" in said[0]["message"]
    rated = twice.with_columns(rating=pl.lit(3) + pl.col("item") % 3).drop("kind")
    rated.write_csv(tmp_path / "rated.csv")
    copies = {f["code"]: f["count"] for f in run_check(tmp_path, dataset="rated.csv")["findings"]}
    assert copies["D101"] >= 7, "a rating is given once"


def test_what_happens_twice_on_a_day_of_a_zone_is_kept(tmp_path):
    day = events().with_columns(pl.from_epoch("time").dt.truncate("1d").dt.replace_time_zone("America/New_York"))
    twice = pl.concat([day, day[:5]])
    twice.write_parquet(tmp_path / "log.parquet")
    for options in (("--event-col", "kind"), ()):
        found = run_check(tmp_path, *options, "--fix", "out.parquet", dataset="log.parquet")
        assert "D101" not in {f["code"] for f in found["findings"]}
        assert pl.read_parquet(tmp_path / "out.parquet").equals(twice)


def test_another_type_of_event_is_no_copy_though_no_option_names_the_types(tmp_path):
    at_once = pl.concat([events().with_columns(kind=pl.lit(kind)) for kind in ("view", "purchase")])
    pl.concat([at_once, at_once[:1]]).write_csv(tmp_path / "log.csv")
    found = run_check(tmp_path, "--fix", "out.csv", dataset="log.csv")
    assert {f["code"]: f["count"] for f in found["findings"]}["D101"] == 1
    assert pl.read_csv(tmp_path / "out.csv").equals(at_once.unique(maintain_order=True))


def test_a_repair_says_how_many_purchases_it_leaves_out(tmp_path):
    log = events()
    buys, views = (log.filter(pl.col("kind") == kind)[:n] for kind, n in (("purchase", 3), ("view", 5)))
    broken = pl.concat([buys[:1], views]).with_columns(user=None)
    pl.concat([log, buys, views, broken], how="vertical_relaxed").write_csv(tmp_path / "log.csv")
    options = "--event-col", "kind", "--fix", "out.csv"
    changes = run_check(tmp_path, *options, "--target", "purchase", dataset="log.csv")["fixed"]["changes"]
    assert changes == [
        "left out 6 rows that cannot be read (1 of them purchase)", "left out 8 copies (3 of them purchase)",
    ]  # fmt: skip
    changes = run_check(tmp_path, "--fix", "out.csv", dataset="log.csv")["fixed"]["changes"]
    assert changes == ["left out 6 rows that cannot be read", "left out 8 copies"], "no target, no word of it"


LINES = ["user,item,rating,time", *(f"u{n % 20},i{n % 9},{1 + n % 5},{1_600_000_000 + n}" for n in range(60))]


@pytest.mark.parametrize("quoted", [False, True])
def test_lines_with_too_many_or_too_few_fields_are_named_and_the_rest_is_examined(tmp_path, quoted):
    lines = [*LINES]
    lines[4] = "u1,Alien, the return,5,1600000000"
    lines[10] = "u1,i3,5"
    lines[20] += ",more,and more"
    lines[30] = lines[30].replace("u9", "")
    if quoted:
        lines[2] = '"u\n1","i, 1",3,1600000001'  # two lines, one row
        lines[12] = '"u3","i5",4'
    (tmp_path / "lines.csv").write_text("\n".join(lines) + "\n")
    facts = run_check(tmp_path, dataset="lines.csv", code=3)
    found = {f["code"]: f for f in facts["findings"]}
    assert found["D112"]["count"] == 2 and found["D113"]["count"] == 1 + quoted
    assert found["D112"]["examples"] == [
        f"line {5 + quoted} of lines.csv: 5 for 4",
        f"line {21 + quoted} of lines.csv: 6 for 4",
    ]
    assert found["D113"]["examples"][0] == f"line {11 + quoted} of lines.csv: 3 for 4"
    assert f"line {31 + quoted}: " in found["D104"]["examples"][0], "the lines that are gone are counted"
    assert f"line {11 + quoted}: " in found["D106"]["examples"][0]
    assert facts["ratings"] == 60 - 2 - 1 - 1 - quoted
    done = run_check(tmp_path, "--fix", "out.csv", dataset="lines.csv")
    assert done["fixed"]["changes"][0] == "left out 2 lines with too many fields"
    with pytest.raises(
        DataError, match=rf"line {5 + quoted} has 5 fields, not 4: u1,Alien.*lines {21 + quoted} have.*--fix"
    ):
        load_dataset(tmp_path / "lines.csv")
    assert len(load_dataset(tmp_path / "out.csv").ratings) == facts["ratings"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_ragged_lines_of_items_and_further_ratings_are_named_with_their_file_and_the_rest_is_examined(tmp_path, ending):
    ragged = [*LINES]
    ragged[4] = "u1,Alien, the return,5,1600000000"
    ragged[10] = "u1,i3,5"
    items = ["item_id,title,genres", *(f"i{n},Title,Drama" for n in range(9))]
    items[2] = "i1,Alien, the return,Horror"
    items[5] = "i4,Short"
    for name, lines in (("r.csv", LINES), ("more.csv", ragged), ("items.csv", items), ("test.csv", ragged[:13])):
        (tmp_path / name).write_bytes((ending.join(lines) + ending).encode())
    options = {"items.csv": "--items", "more.csv": "--extra-ratings", "test.csv": "--test"}
    for name, option in options.items():
        facts = run_check(tmp_path, option, name, dataset="r.csv", code=3)
        found = {f["code"]: f for f in facts["findings"]}
        first, second = (3, 6) if name == "items.csv" else (5, 11)
        width = 3 if name == "items.csv" else 4
        assert found["D112"]["examples"] == [f"line {first} of {name}: {width + 1} for {width}"]
        assert found["D113"]["examples"] == [f"line {second} of {name}: {width - 1} for {width}"]
        assert "--fix" not in found["D112"]["remedy"] and "D110" not in found and facts["ratings"] > 0
        if name != "items.csv":
            assert found["D106"]["count"] == 1 and "line 11" in found["D106"]["examples"][0]
    found = {f["code"]: f for f in run_check(tmp_path, "--items", "items.csv", dataset="r.csv", code=3)["findings"]}
    assert found["D504"]["count"] == 1, "the other items are there"
    with pytest.raises(DataError, match=r"more\.csv: line 5 has 5 fields"):
        load_dataset(tmp_path / "r.csv", extra_ratings=str(tmp_path / "more.csv"))


def test_what_cannot_be_read_of_further_ratings_is_examined_as_the_ratings_are(tmp_path):
    (tmp_path / "r.csv").write_text("\n".join(LINES) + "\n")
    more = [LINES[0], "u1,i1,5,1600000100", "u1,i2,great,1600000200", ",i2,3,1600000200"]
    (tmp_path / "more.csv").write_text("\n".join(more) + "\n")
    facts = run_check(tmp_path, "--extra-ratings", "more.csv", dataset="r.csv", code=3)
    found = {f["code"]: f["message"] for f in facts["findings"]}
    assert "1 row of more.csv has no rating" in found["D105"] and "1 row of more.csv has no user id" in found["D104"]
    (tmp_path / "more.csv").write_text("a,b\nx,1\n")
    found = run_check(tmp_path, "--extra-ratings", "more.csv", dataset="r.csv", code=3)["findings"]
    assert [f["code"] for f in found if f["severity"] == "error"] == ["D110"]


def test_a_log_shows_what_each_type_brings(tmp_path):
    events().write_csv(tmp_path / "log.csv")
    options = "--event-col", "kind", "--target", "purchase"
    table = run_check(tmp_path, *options, dataset="log.csv")["events"]
    for name, facts in table.items():
        rows = events().filter(pl.col("kind") == name)
        assert (facts["events"], facts["pairs"]) == (rows.height, rows.unique(["user", "item"]).height)
    assert table["return"]["says_no"] and table["purchase"]["is_target"] and not table["view"]["is_target"]
    assert table["view"]["auto_tries"] == [1, 1, 1, 1, 1, 0] and table["return"]["auto_tries"] == [0] * 6
    done = recsys_here("data", "check", "--dataset", "log.csv", *options, cwd=tmp_path)
    assert "says no" in done.stdout and "not trained on" not in done.stderr, "it is said once"


# In a training


def test_a_training_says_the_worst_in_three_lines_and_records_all(tmp_path, caplog):
    frame = changed("rating", range(5), 0.0)
    frame = changed("timestamp", (9,), 4_000_000_000, changed("timestamp", (8,), 0, frame))
    frame = plus(("anna", "7", 3, 1_600_000_000), ("Anna", "8", 3, 1_600_000_000), RATINGS.row(50), frame=frame)
    data = Dataset(Ratings.from_frame(frame), None)
    run = RunConfig(track=False, baselines=False, out=str(tmp_path / "m"))
    with caplog.at_level("INFO"):
        recommender, _ = run_experiment(DataConfig(), *small("softmax", epochs=1), run, dataset=data)
    lines = [r.getMessage() for r in caplog.records if re.search(r"\bD\d{3}\b", r.getMessage())]
    assert len(lines) == 3 and lines[0].startswith("D202: 5 ratings are 0 or below") and lines[1].startswith("D301")
    assert lines[2] == "D302, D403, D103, D703 more: recsys data check shows all"
    counts = {"D202": 5, "D301": 1, "D302": 1, "D403": 1, "D103": 1, "D703": 4002}
    assert counts.items() <= recommender.metadata["findings"].items()


@pytest.mark.parametrize("name", ["Quantity", "price", "betrag"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_refunds_that_train_as_purchases_are_pointed_out(tmp_path, caplog, name, ending):
    amounts = [-2 if n in (3, 77, 78) else 1 + n % 4 for n in range(RATINGS.height)]
    orders = RATINGS.select("user_id", "item_id").with_columns(pl.Series(name, amounts))
    file = tmp_path / f"orders{ending}"
    orders.write_csv(file) if ending == ".csv" else orders.write_parquet(file)
    with caplog.at_level("INFO"):
        data = DataConfig(dataset=str(file))
        run = RunConfig(track=False, baselines=False, out=str(tmp_path / "m"))
        recommender, _ = run_experiment(data, *small("softmax", epochs=1), run)
    assert f"D205: 3 rows have a {name} below 0 and train as positives" in caplog.text
    assert recommender.metadata["findings"]["D205"] == 3
    finding = {f["code"]: f for f in run_check(tmp_path, dataset=file.name)["findings"]}["D205"]
    assert f"--rating-col {name}" in finding["remedy"] and finding["severity"] == "warning" and not finding["is_fixed"]
    named = "--rating-col", name, "--duplicates", "sum", "--min-rating", "0.01"
    assert "D205" not in {f["code"] for f in run_check(tmp_path, *named, dataset=file.name)["findings"]}
    kept = load_dataset(file, rating_col=name, duplicates="sum").ratings.positives(0.01)
    bought = orders.group_by("user_id", "item_id").agg(pl.col(name).sum()).filter(pl.col(name) > 0)
    assert len(kept) == bought.height, "what the remedy says"


def test_amounts_below_0_are_no_refunds_beside_ratings_and_types_that_say_no(tmp_path):
    RATINGS.with_columns(price=pl.lit(-1)).write_csv(tmp_path / "rated.csv")
    assert "D205" not in {f["code"] for f in run_check(tmp_path, dataset="rated.csv")["findings"]}
    log = events().with_columns(quantity=pl.when(pl.col("kind") == "return").then(-1).otherwise(1))
    log.write_csv(tmp_path / "log.csv")
    assert "D205" not in {f["code"] for f in run_check(tmp_path, "--event-col", "kind", dataset="log.csv")["findings"]}
    log.with_columns(quantity=-pl.col("quantity")).write_csv(tmp_path / "log.csv")
    found = {f["code"]: f for f in run_check(tmp_path, "--event-col", "kind", dataset="log.csv")["findings"]}
    assert found["D205"]["count"] == log.filter(pl.col("kind") != "return").height


def test_a_training_on_stars_learns_zeros_too(tmp_path, caplog):
    data = Dataset(Ratings.from_frame(changed("rating", range(5), 0.0).drop("timestamp")), None)
    run = RunConfig(track=False, baselines=False, out=str(tmp_path / "m"))
    for loss, expected in (("mse", False), ("softmax", True)):
        caplog.clear()
        run_experiment(DataConfig(), *small(loss, epochs=1), replace(run, out=str(tmp_path / loss)), dataset=data)
        assert ("D202" in caplog.text) == expected
