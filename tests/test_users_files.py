"""Files of users: read as ratings are, with conditions and lengths of their own and columns that are carried along."""

import io
import json
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from worlds import recsys_here, small

from recsys_embed.answering import batch
from recsys_embed.config.answers import Rules
from recsys_embed.data.ratings import Ratings
from recsys_embed.data.users_table import users_table
from recsys_embed.errors import DataError, SettingError, UnknownId
from recsys_embed.recommender import Recommender
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.users_file import read_users

USERS, ITEMS = 40, 30
PLAIN = pl.DataFrame({"user_id": [9, 3, 27], "segment": ["gold", None, "blue"]})


@pytest.fixture(scope="module")
def model():
    dataset = load_dataset(f"synthetic:users={USERS},items={ITEMS},ratings=500")
    return Recommender(*small("softmax", items=ITEMS, epochs=2)).fit(dataset.ratings, dataset.items)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(batch, "query_batch_size", lambda keys: 7)


def pandas_csv(frame, **options):
    return frame.to_pandas().to_csv(**options)


def pandas_parquet(frame):
    buffer = io.BytesIO()
    frame.to_pandas().set_index("user_id", drop=False).rename_axis(None).to_parquet(buffer)
    return buffer.getvalue()


def parquet(frame):
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


FORMS = {
    "plain": PLAIN.write_csv(),
    "index": pandas_csv(PLAIN),
    "quoted": '"user_id","segment"\n"9","gold"\n"3",\n"27","blue"\n',
    "windows": "\ufeff" + PLAIN.write_csv(separator=";").replace("\n", "\r\n"),
    "tabs": PLAIN.write_csv(separator="\t"),
    "last": PLAIN.select("segment", "user_id").write_csv(),
    "userId": PLAIN.rename({"user_id": "userId"}).write_csv(),
    "Customer ID": PLAIN.rename({"user_id": "Customer ID"}).write_csv(),
    "id": PLAIN.rename({"user_id": "id"}).write_csv(),
    "source": PLAIN.rename({"user_id": "visitor_no"}).with_columns(source=pl.lit("web")).write_csv(),
    "json": PLAIN.write_ndjson(),
    "list": PLAIN.write_json(),
    "parquet": parquet(PLAIN),
    "pandas": pandas_parquet(PLAIN),
    "twice": pl.concat([PLAIN, PLAIN.with_columns(segment=pl.lit("again"))]).write_csv(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_users_is_read_as_ratings_are(model, tmp_path, form):
    path = tmp_path / "users"
    path.write_bytes(FORMS[form].encode() if isinstance(FORMS[form], str) else FORMS[form])
    model.write_recommendations(tmp_path / "out.parquet", path, 2)
    found = pl.read_parquet(tmp_path / "out.parquet")
    expected = model.recommend([9, 3, 27], 2).join(PLAIN, on="user_id", maintain_order="left")
    assert found.columns[:2] == ["user_id", "segment"]
    assert_frame_equal(found.select(expected.columns), expected)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("7\n3\n", [7, 3]),
        ("user_id\n7\n3\n", [7, 3]),
        ("anna\nbert\n", ["anna", "bert"]),
        ("member\nanna\n", ["anna"]),
        ("007\n7\n", ["007", "7"]),
        ("9007199254740993\n9007199254740992\n", [9007199254740993, 9007199254740992]),
        ("7,gold\n3,blue\n", [7, 3]),
        ("user,item,rating\n7,1,5\n7,2,4\n", [7, 7]),
    ],
)
def test_a_line_may_be_an_id_and_no_id_loses_a_digit(tmp_path, text, ids):
    (tmp_path / "users.txt").write_text(text)
    users = read_users(tmp_path / "users.txt")
    assert users.ids.to_list() == ids and users.columns.width == 0


def test_no_column_or_two_are_one_clear_line(tmp_path):
    (tmp_path / "users.csv").write_text("letter_to,segment\n7,gold\n")
    with pytest.raises(DataError, match="no column for the user among letter_to, segment: name it with --user-col"):
        read_users(tmp_path / "users.csv")
    assert read_users(tmp_path / "users.csv", "letter_to").ids.to_list() == [7]
    with pytest.raises(DataError, match="no column 'client' for the user; the columns are letter_to, segment"):
        read_users(tmp_path / "users.csv", "client")
    with pytest.raises(DataError, match=r"'customer_id' or 'member_no'\? --user-col customer_id decides"):
        users_table(pl.DataFrame({"customer_id": [1], "member_no": [2]}))
    with pytest.raises(DataError, match="user id is missing in row 2"):
        users_table(pl.DataFrame({"user": [1, None], "segment": ["a", "b"]}))
    with pytest.raises(DataError, match="no row"):
        users_table(pl.DataFrame({"user": []}))


RULES = {
    "none": Rules(),
    "where": Rules(where="year < 2000 or year > 2010"),
    "limits": Rules(per_group="year: 1", boost="year > 1990: 0.5"),
    "diverse": Rules(diversity=0.4),
}
OWN = pl.DataFrame(
    {
        "user": list(range(1, USERS + 1)),
        "where": [[None, "year >= 1980", "year < 1980", " "][n % 4] for n in range(USERS)],
        "k": [[None, 1, 5][n % 3] for n in range(USERS)],
        "email": [f"{n}@shop.example" for n in range(USERS)],
    }
)


@pytest.mark.parametrize("rules", RULES)
def test_each_list_is_the_one_that_its_user_would_get_alone(model, tmp_path, rules):
    model.write_recommendations(tmp_path / "out.parquet", OWN, 3, rules=RULES[rules])
    found = pl.read_parquet(tmp_path / "out.parquet")
    general = RULES[rules].where
    for user, where, k, email in OWN.iter_rows():
        both = [text for text in (general, where) if text and text.strip()]
        own = Rules(**vars(RULES[rules]) | {"where": " and ".join(f"({text})" for text in both) or None})
        expected = model.recommend(user, k or 3, rules=own)
        assert_frame_equal(found.filter(user_id=user).drop("email"), expected)
        assert found.filter(user_id=user)["email"].unique().to_list() == [email] * bool(len(expected))


@pytest.mark.parametrize("shape", ["long", "wide", "json"])
def test_columns_are_carried_in_every_shape_and_part(model, tmp_path, shape):
    own = OWN.sort("k")  # so that no list of the first parts is of the full length
    written = model.write_recommendations(f"{tmp_path}/out/", own, 3, shape=shape, per_part=11)
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert written.files == 4 and found.columns[:2] == ["user_id", "email"]
    carried = found.select("user_id", "email").unique(maintain_order=True)
    listed = [u for u in own["user"].to_list() if shape != "long" or u not in written.empty]
    assert carried.rows() == own.filter(pl.col("user").is_in(listed)).select("user", "email").rows()
    if shape == "wide":
        assert found.columns[2:] == [f"{what}_{n}" for n in range(1, 6) for what in ("item", "title", "score")]
    with pytest.raises(SettingError, match="the users are others"):
        model.write_recommendations(
            f"{tmp_path}/out/", own.with_columns(email=pl.lit("x")), 3, shape=shape, per_part=11
        )
    with pytest.raises(SettingError, match="the users are others"):
        model.write_recommendations(f"{tmp_path}/out/", own.with_columns(k=5), 3, shape=shape, per_part=11)


def test_what_does_not_fit_is_said_with_its_line(model, tmp_path, caplog):
    frame = pl.DataFrame({"user": [3, 7], "k": ["2", "many"]})
    with pytest.raises(DataError, match="k must be a whole number, at least 1, got 'many' in row 2"):
        model.write_recommendations(tmp_path / "out.csv", frame)
    for wrong in (0, -1, 1.5):
        with pytest.raises(DataError, match="k must be a whole number"):
            users_table(pl.DataFrame({"user": [3], "k": [wrong]}))
    assert users_table(pd.DataFrame({"user": [3, 7], "k": [4, None]})).k.to_list() == [4, None]
    for where, message in {"year >": "it ends where", "colour = 'red'": "colour"}.items():
        frame = pl.DataFrame({"user": [3, 7], "where": [None, where]})
        with pytest.raises(DataError, match=f"the condition in row 2 of the users: .*{message}"):
            model.write_recommendations(tmp_path / "out.csv", frame)
    with pytest.raises(UnknownId, match="user 4242 is not known"):
        model.write_recommendations(tmp_path / "out.csv", [3, 4242])
    assert model.write_recommendations(tmp_path / "out.csv", [3, 4242, 3], on_unknown="skip").lists == 1
    assert "1 of 3 users are unknown: left out" in caplog.text
    frame = pl.DataFrame({"user": [3], "score": [1.5], "item_1": [2], "tags": [["a"]], "segment": ["x"]})
    model.write_recommendations(tmp_path / "out.csv", frame)
    assert pl.read_csv(tmp_path / "out.csv").columns == ["user_id", "segment", "item_id", "title", "score", "rank"]
    assert "lists have columns of these names: score, item_1" in caplog.text and "plain values: tags" in caplog.text


def test_users_may_be_given_in_every_way(model, tmp_path):
    (tmp_path / "users.txt").write_text("9\n3\n")
    frame = pl.DataFrame({"user": [9, 3]})
    ways = [[9, 3], ["9", 3], frame["user"], frame, frame.lazy(), frame.to_pandas(), frame.to_arrow()]
    for users in [*ways, tmp_path / "users.txt"]:
        model.write_recommendations(tmp_path / "out.parquet", users, 2)
        assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), model.recommend([9, 3], 2))
    model.write_recommendations(tmp_path / "out.parquet", 9, 2)
    assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), model.recommend(9, 2))


def test_ids_of_text_keep_their_zeros(tmp_path):
    users = ["007", "7", "a b", "ü"]
    pairs = [(user, item) for n, user in enumerate(users) for item in range(6) if (item + n) % 3]
    ratings = Ratings.from_frame(pl.DataFrame(pairs, ["user", "item"], orient="row"))
    model = Recommender(*small("softmax", items=6, epochs=1)).fit(ratings)
    (tmp_path / "users.csv").write_text("where,user\n,ü\nitem_id != 1,007\n,7\n,a b\n")
    model.write_recommendations(tmp_path / "out.csv", tmp_path / "users.csv", shape="json")
    rows = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert rows["user_id"].to_list() == ["ü", "007", "7", "a b"]
    (tmp_path / "users.csv").write_text("user\n7\n")  # reads as an integer, and is text to the model
    assert model.write_recommendations(tmp_path / "out.csv", Path(tmp_path / "users.csv")).lists == 1


def test_lists_are_not_written_over_what_they_are_made_from(model, tmp_path):
    model.save(tmp_path / "m")
    text = "user_id,item_id,stock\n3,4,5\n9,7,1\n"
    for name in ("letter.csv", "stock.csv", "test.csv"):
        (tmp_path / name).write_text(text)
    (tmp_path / "link.csv").symlink_to("letter.csv")
    lists = "recommend", "--model", "m", "--k", "2"
    for command, said in {
        (*lists, "--users", "letter.csv", "--out", "./letter.csv"): "./letter.csv is the file that --users reads",
        (*lists, "--users", "letter.csv", "--out", "link.csv"): "link.csv is the file that --users reads",
        (*lists, "--all-users", "--items", "stock.csv", "--out", "stock.csv"): "the file that --items reads",
        ("evaluate", "--model", "m", "--test", "test.csv", "--per-user", "test.csv"): "the file that --test reads",
    }.items():
        assert said in recsys_here(*command, cwd=tmp_path, code=2).stderr
    with pytest.raises(SettingError, match="the file that users reads, and would be lost"):
        model.write_recommendations(str(tmp_path / "letter.csv"), tmp_path / "letter.csv", k=2)
    assert all((tmp_path / name).read_text() == text for name in ("letter.csv", "link.csv", "stock.csv", "test.csv"))


def test_the_command_line_takes_them(model, tmp_path):
    folder = str(model.save(tmp_path / "model"))
    OWN.rename({"user": "letter_to"}).write_csv(tmp_path / "users.csv")
    command = ("recommend", "--users", "users.csv", "--user-col", "letter_to", "--k", "3", "--model", folder)
    done = recsys_here(*command, "--where", "year > 1950", "--out", "cli.parquet", "--json", cwd=tmp_path)
    rules = Rules(where="year > 1950")
    written = model.write_recommendations(tmp_path / "here.parquet", OWN, 3, rules=rules)
    assert json.loads(done.stdout)["lists"] == written.lists
    assert_frame_equal(pl.read_parquet(tmp_path / "cli.parquet"), pl.read_parquet(tmp_path / "here.parquet"))
    said = recsys_here(*command[:3], "--out", "x.csv", "--model", folder, cwd=tmp_path, code=3).stderr
    assert said.startswith("error: no column for the user among letter_to, where, k, email: name it with --user-col")


@pytest.mark.parametrize("rules", RULES)
def test_strangers_get_what_an_anonymous_user_gets(model, tmp_path, rules):
    shape, options = {"rules": RULES[rules]}, {"on_unknown": "popular"}
    frame = pl.DataFrame({"user": [9, 4242, 3, 4242, -5], "where": [None, "year >= 1980", None, None, None]})
    written = model.write_recommendations(f"{tmp_path}/out/", frame, 3, per_part=2, **shape, **options)
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert found["user_id"].dtype == pl.Int64 and written.lists == 4
    own = Rules(**vars(RULES[rules]) | {"where": f"({RULES[rules].where or 'year > 0'}) and year >= 1980"})
    for user, expected in {
        9: model.recommend(9, 3, **shape).drop("user_id"),
        4242: model.recommend_for([], 3, rules=own),  # the first of the two rows counts
        3: model.recommend(3, 3, **shape).drop("user_id"),
        -5: model.recommend_for([], 3, **shape),
    }.items():
        assert_frame_equal(found.filter(user_id=user).drop("user_id"), expected)
    assert found["user_id"].unique(maintain_order=True).to_list() == [9, 4242, 3, -5]
    again = model.write_recommendations(f"{tmp_path}/out/", frame, 3, per_part=2, **shape, **options)
    assert again.new_files == 0
    with pytest.raises(SettingError, match="the users are others"):
        other = frame.with_columns(user=pl.Series([9, 4243, 3, 4243, -5]))
        model.write_recommendations(f"{tmp_path}/out/", other, 3, per_part=2, **shape, **options)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(["9", "new-1"], ["9", "new-1"]), (["9", "007"], ["9", "007"]), (["9", "4242"], [9, 4242]), (["new"], ["new"])],
)
def test_ids_of_strangers_stay_what_they_are(model, tmp_path, ids, expected, caplog):
    for shape in ("wide", "json"):
        out = tmp_path / f"{shape}.parquet"
        written = model.write_recommendations(out, ids, 2, shape=shape, hide_test=True, on_unknown="popular")
        assert pl.read_parquet(out)["user_id"].to_list() == expected and written.lists == len(ids)
    assert f"1 of {len(ids)} users are unknown: their lists hold what is popular" in caplog.text
