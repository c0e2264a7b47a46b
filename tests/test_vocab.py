import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_embed.data.ids import id_column
from recsys_embed.data.vocab import Vocab
from recsys_embed.errors import DataError, UnknownId

ids = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True),
    st.lists(st.text(max_size=12).filter(lambda t: "\x00" not in t), min_size=1, unique=True),
)


@given(ids)
def test_rows_and_ids_are_inverse(values):
    vocab = Vocab(values, "user")
    rows = np.arange(len(values))[::-1]
    assert vocab.rows(vocab.ids(rows)).tolist() == rows.tolist()
    assert vocab.ids(vocab.rows(values)).to_list() == values
    assert all(v in vocab for v in values)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6), min_size=1))
def test_text_columns_become_integers_only_when_nothing_is_lost(values):
    column = id_column(pl.Series("user", values), "user", from_text=True)
    assert [str(v) for v in column.to_list()] == values


def test_leading_zeros_keep_a_whole_column_text():
    assert id_column(pl.Series(["7", "007"]), "user", from_text=True).to_list() == ["7", "007"]
    assert id_column(pl.Series(["7", "8"]), "user", from_text=True).to_list() == [7, 8]
    for text in ("+7", "-0", "1" + "0" * 18, "8.0", " 8", "", "-9223372036854775808"):
        assert id_column(pl.Series(["7", text]), "user", from_text=True).to_list() == ["7", text]
    assert id_column(pl.Series(["9007199254740993"]), "user", from_text=True).to_list() == [9007199254740993]


def test_big_lookups_agree_with_small_ones():
    vocab = Vocab(np.arange(30_000) * 3, "item")
    asked = np.arange(25_000)
    many = vocab.rows(asked, missing="negative")
    assert many.tolist() == [a // 3 if a % 3 == 0 else -1 for a in asked]
    padded = vocab.rows(pl.Series([f"{i:05d}" for i in range(0, 60_000, 3)]), missing="negative")
    assert (padded[:3333] == -1).all() and padded[3334:3337].tolist() == [3334, 3335, 3336]
    text = Vocab([str(i) for i in range(20_000)], "item")
    assert text.rows(np.arange(20_000)).tolist() == list(range(20_000))


def test_a_column_is_looked_up_as_its_ids_are_one_by_one():
    vocab = Vocab([-(2**63), -42, 0, 7, 10**18 - 1, 10**18, 2**63 - 1], "item")
    texts = ["7", "007", "-42", "--42", "-0", "0", "1.0", "", "٧"]
    texts += [str(i) for i in (-(2**63), 10**18 - 1, 10**18, 2**63 - 1, 2**63)]
    one_by_one = [vocab.rows([text], missing="negative")[0] for text in texts]
    assert sorted({*one_by_one}) == list(range(-1, len(vocab)))
    assert vocab.rows(pl.Series(texts * 100), missing="negative").tolist() == one_by_one * 100


@pytest.mark.parametrize("apart", [1, 7, 10**12])
def test_many_integers_are_found_however_far_apart(apart):
    vocab = Vocab(np.arange(-300, 15_000) * apart, "item")
    rows = np.random.default_rng(0).permutation(len(vocab))
    strange = [-(2**63), 2**63 - 1, -301 * apart, 15_000 * apart]
    asked = np.concatenate((vocab.series.to_numpy()[rows], strange))
    assert vocab.rows(asked, missing="negative").tolist() == [*rows, -1, -1, -1, -1]


@pytest.mark.parametrize("many", [1, 20_000])
def test_unknown_ids_are_named_with_their_nearest(many):
    vocab = Vocab(np.arange(1, 20_001), "user")
    with pytest.raises(UnknownId, match=r"user 99999 is not known; 20,000 users are, e\.g\. 19998, 19999, 20000"):
        vocab.rows([*range(1, many), 99999])


def test_ids_that_a_spreadsheet_changed_are_named_first():
    names = Vocab(["7110", "0711", "Anna", "711a"], "user")
    assert names.nearest("711") == ["0711"] and names.nearest("00711") == ["0711"]
    assert names.nearest(" anna ") == ["Anna"]
    assert names.nearest("711\ud800")[0] != "0711"  # half a character is like nothing
    assert Vocab(["000", "12"], "user").nearest(0) == ["000"]
    numbers = Vocab([5, 711, 712], "item")
    assert numbers.nearest("0711") == [711] and numbers.nearest(710) == [5, 711, 712]


def test_an_id_is_read_by_the_vocabulary():
    numbers, names = Vocab([1, 42], "user"), Vocab(["007", "42"], "user")
    assert numbers.rows(["42"]).tolist() == [1]
    assert names.rows([42]).tolist() == [1]
    assert "007" in names and "7" not in names
    assert "042" not in numbers and 1.0 not in numbers
    with pytest.raises(UnknownId, match="text"):
        raise Vocab(["anna", "bert"], "user").unknown("text")
    assert Vocab(["anna", "bert"], "user").nearest("ana") == ["anna"]


def test_ids_never_pass_through_a_float():
    with pytest.raises(DataError, match="floats"):
        id_column(pl.Series("user", [1.0, 2.0]), "user")
    with pytest.raises(DataError, match="missing in row 2"):
        id_column(pl.Series("user", ["a", None]), "user")
    with pytest.raises(DataError, match="not distinct"):
        Vocab([1, 1], "user")
