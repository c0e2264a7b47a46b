import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys_embed.data.sorting import sorted_values, stable_argsort

number = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
columns = st.integers(0, 40).flatmap(lambda n: st.tuples(*[st.lists(number, min_size=n, max_size=n)] * 2))


@given(columns)
def test_orders_are_those_of_numpy(given):
    major, minor = (np.array(column, np.int64) for column in given)
    assert stable_argsort(major).tolist() == np.argsort(major, kind="stable").tolist()
    assert stable_argsort(major, stable_argsort(minor)).tolist() == np.lexsort((minor, major)).tolist()
    assert sorted_values(major).tolist() == np.sort(major).tolist()


def test_many_rows_leave_less_room_for_their_numbers():
    random = np.random.default_rng(0)
    column = random.integers(0, 5, 100_000) << random.integers(0, 60, 100_000)
    assert np.array_equal(stable_argsort(column), np.argsort(column, kind="stable"))
