"""What a service was told becomes ratings that a training reads."""

import sqlite3

import polars as pl
import pytest

from recsys_embed import load_dataset
from recsys_embed.errors import DataError
from recsys_embed.serving.event_store import Event, EventStore

GIVEN = [Event("3", "10", 4.0, 50), Event("3", "11"), Event("4", "10", 1.0), Event("3", "10", 5.0, 60)]


@pytest.fixture
def kept(tmp_path):
    log = EventStore(tmp_path / "events.db")
    log.append(GIVEN).result()
    yield tmp_path / "events.db"
    log.close()


def rows(ratings):
    return sorted(ratings.frame().select("user_id", "item_id", "rating").rows())


def test_events_are_a_data_set_while_the_service_writes_on(kept):
    ratings = load_dataset(str(kept)).ratings
    # The last word counts; a like is half way from the mean (10 / 3) to the highest.
    assert rows(ratings) == [(3, 10, 5.0), (3, 11, pytest.approx(25 / 6)), (4, 10, 1.0)]
    assert ratings.time.min() > 0, "an event without a time has that of its arrival"


def test_events_come_behind_the_ratings_of_a_file(kept, tmp_path):
    frame = pl.DataFrame({"userId": [3, 7, 7], "movieId": [10, 10, 12], "rating": [2, 3, 5], "timestamp": [1, 2, 3]})
    for name in ("ratings.csv", "ratings.parquet"):
        (frame.write_csv if name.endswith("csv") else frame.write_parquet)(tmp_path / name)
        found = load_dataset(str(tmp_path / name), extra_ratings=str(kept)).ratings
        assert rows(found) == [
            (3, 10, 5.0), (3, 11, pytest.approx(25 / 6)), (4, 10, 1.0), (7, 10, 3.0), (7, 12, 5.0)
        ]  # fmt: skip
    positives = frame.select("userId", "movieId")
    positives.write_csv(tmp_path / "positives.csv")
    found = load_dataset(str(tmp_path / "positives.csv"), extra_ratings=str(kept)).ratings
    assert len(found) == 5 and set(found.value) == {1.0}


def test_one_new_user_of_text_makes_all_ids_text(kept, tmp_path):
    log = EventStore(kept)
    log.append([Event("new", "10", 5.0)]).result()
    log.close()
    pl.DataFrame({"user_id": [3, 7], "item_id": [10, 12], "rating": [2, 3]}).write_parquet(tmp_path / "a.parquet")
    found = load_dataset(str(tmp_path / "a.parquet"), extra_ratings=str(kept)).ratings
    assert found.users.is_text and not found.items.is_text and {"3", "4", "7", "new"} == set(found.users.series)


def test_likes_alone_have_no_ratings(tmp_path):
    log = EventStore(tmp_path / "likes.db")
    log.append([Event("a", "x"), Event("a", "y"), Event("b", "x")]).result()
    log.close()
    assert set(load_dataset(str(tmp_path / "likes.db")).ratings.value) == {1.0}
    pl.DataFrame({"user_id": ["a", "c"], "item_id": ["z", "x"], "rating": [1.0, 5.0]}).write_csv(tmp_path / "a.csv")
    found = load_dataset(str(tmp_path / "a.csv"), extra_ratings=str(tmp_path / "likes.db")).ratings
    assert rows(found)[0] == ("a", "x", 4.0), "half way from 3 to 5"


def test_another_sqlite_file_is_read_as_a_table(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE events (id)")
    other.close()
    with pytest.raises(DataError, match="there are no ratings"):
        load_dataset(str(tmp_path / "other.db"))
