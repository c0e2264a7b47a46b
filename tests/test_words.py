"""Word vectors: every form is read back, broken files are refused with their line, and nothing is executed."""

import gzip
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_embed.errors import DataError, UnknownId
from recsys_embed.words import formats as word_files
from recsys_embed.words.vectors import WordVectors, read_word_test

WORDS = ["the", "käse", "日本", "king's", "a\u00a0b", '"', "42"]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32)


def lines(end=""):
    return [f"{w} {' '.join(repr(float(x)) for x in v)}{end}\n" for w, v in zip(WORDS, VECTORS, strict=True)]


def binary(between=b"\n"):
    rows = [w.encode() + b" " + v.tobytes() + between for w, v in zip(WORDS, VECTORS, strict=True)]
    return f"{len(WORDS)} 3\n".encode() + b"".join(rows)


FORMS = {
    "glove": "".join(lines()).encode(),
    "no last newline": "".join(lines()).encode()[:-1],
    "windows": "".join(lines()).replace("\n", "\r\n").encode(),
    "word2vec text": f"{len(WORDS)} 3\n{''.join(lines())}".encode(),
    "fasttext vec": f"{len(WORDS)} 3\n{''.join(lines(' '))}".encode(),
    "word2vec binary": binary(),
    "binary without ends": binary(b""),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_back(tmp_path, form, zipped, monkeypatch):
    monkeypatch.setattr(word_files, "_CHUNK", 40)  # so that lines and vectors lie across the parts that are read
    path = tmp_path / "vectors.any"
    path.write_bytes(gzip.compress(FORMS[form]) if zipped else FORMS[form])
    found = WordVectors.load(path)
    assert found.words.series.to_list() == WORDS and not found.notes
    np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xef\xbb\xbf2 3\na 1 2 3\nb 4 5 6\n", ["a", "b"]),  # a byte-order mark before the header
        (b"\xef\xbb\xbfa 1 2 3\nb 4 5 6\n", ["a", "b"]),
        (b". . . 1 2 3\nb 4 5 6\n", [". . .", "b"]),  # blanks in the first word
        (b"  1 2 3\nb 4 5 6\n", ["b"]),  # a first word of blanks
        (b"2 3\na b 1 2 3\nc 4 5 6\n", ["a b", "c"]),  # and after a header
        (b"a  1 2 3\nb  4 5 6\n", ["a", "b"]),  # two blanks after the word are none of it
        (b"a\t1\t2\t3\nb\t4\t5\t6\n", ["a", "b"]),
        (b"2\t3\na\t1 2 3\nb\t4 5 6\n", ["a", "b"]),
    ],
)
def test_the_first_line_may_be_odd(tmp_path, data, words):
    (tmp_path / "odd.txt").write_bytes(data)
    found = WordVectors.load(tmp_path / "odd.txt")
    assert found.words.series.to_list() == words and found.vectors[-1].tolist() == [4, 5, 6]


@pytest.mark.parametrize("said", [1, 3])
def test_a_header_that_is_wrong_is_a_warning_if_the_last_line_is_whole(tmp_path, caplog, said):
    (tmp_path / "v.vec").write_bytes(f"{said} 2\na 1 2\nb 1 2\n".encode())
    assert len(WordVectors.load(tmp_path / "v.vec")) == 2
    assert f"says {said} words, and there are 2" in caplog.text


def test_our_own_form_and_npy_are_mapped_into_memory(tmp_path):
    vectors = WordVectors.of(pl.Series(WORDS), VECTORS)
    for path in (vectors.save(tmp_path / "own.safetensors"), tmp_path / "other.npy"):
        if path.suffix == ".npy":
            np.save(path, VECTORS)
            pl.DataFrame({"index": WORDS}).write_parquet(tmp_path / "other.parquet")
        found = WordVectors.load(path)
        assert isinstance(found.vectors, np.memmap) and np.array_equal(found.vectors, VECTORS)
        assert found.words.series.to_list() == WORDS


def test_gensims_fasttext_is_read(tmp_path):
    from gensim import models

    model = models.FastText([["to", "be", "or", "not"], ["be", "or", "to"]] * 5, vector_size=4, min_count=1, workers=1)
    models.fasttext.save_facebook_model(model, str(tmp_path / "model.bin"))
    found = WordVectors.load(tmp_path / "model.bin")
    np.testing.assert_allclose(found.vector("be"), model.wv["be"], rtol=1e-5)
    (tmp_path / "cut.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:900])
    with pytest.raises(DataError, match="not a complete fastText file"):
        WordVectors.load(tmp_path / "cut.bin")


def test_what_the_formats_own_files_hold_is_counted(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("a 1 2\n. . . 3 4\na 5 6\n 7 8\nb 9 1\n")
    found = WordVectors.load(path)
    assert found.words.series.to_list() == ["a", ". . .", "b"]
    assert found.vectors.tolist() == [[1, 2], [3, 4], [9, 1]]
    assert found.notes == {"words with blanks": 1, "lines without a word": 1, "duplicate words": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a 1 2\nb 1\n", "line 2 is not a word and 2 numbers"),
        (b"a 1 2\nb 1 x\n", "line 2"),
        (b"a 1 2\n\nb 1 nan\n", "line 3"),
        (b"a 1 2\nb 1 1e39\n", "line 2"),
        (
            b"2 3\nx 1,5 2,0 3,1\ny 1,5 2,0 3,1\n",
            "line 2 is not a word and 3 numbers: 'x 1,5",
        ),
        (b"2 2\na 1 Inf\nb 1 2\n", "line 2 is not a word and 2 numbers"),
        (b"a 1 1_0\nb 1 2\n", "line 1"),
        (b"hello\n", "line 1 is not a word and its numbers"),
        (b"3 2\na 1 2\nb 1 2", "should have 3 words but has 2: it was cut short"),
        ("a 1 2\n".encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
        (binary()[:-9], "cut short"),
        (binary() + b"more", "goes on after its 7 words"),
        (b"2 2\na " + np.array([1, np.inf], "<f4").tobytes() + b"b " + b"\0" * 8, "is not finite"),
        (gzip.compress(FORMS["glove"])[:-10], "not a complete gzip file"),
        (b"999999999999 99999999\na b", "from 1 to 65536"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path, data, message):
    path = tmp_path / "v.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        WordVectors.load(path)


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from([*FORMS, "noise"]), data=st.data())
def test_a_damaged_file_is_an_error_or_a_sound_table(form, data, tmp_path_factory):
    whole = bytearray(FORMS.get(form) or data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path = tmp_path_factory.mktemp("words") / "v"
    path.write_bytes(gzip.compress(cut)[: data.draw(st.integers(1, 400))] if data.draw(st.booleans()) else bytes(cut))
    try:
        found = WordVectors.load(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert found.vectors.shape == (len(found), found.dim) and np.isfinite(found.vectors).all()
        assert found.words.series.n_unique() == len(found) > 0


class Canary:
    def __reduce__(self):
        return (open, ("/tmp/canary-was-executed", "w"))


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.array([Canary()], dtype=object), allow_pickle=True)
    pl.DataFrame({"word": ["a"]}).write_parquet(tmp_path / "v.parquet")
    (tmp_path / "v.bin").write_bytes(pickle.dumps(Canary()))
    for name in ("v.npy", "v.bin"):
        with pytest.raises(DataError):
            WordVectors.load(tmp_path / name)
    import os

    assert not os.path.exists("/tmp/canary-was-executed")


def test_damaged_own_files_are_refused(tmp_path):
    path = WordVectors.of(pl.Series(WORDS), VECTORS).save(tmp_path / "v.safetensors")
    whole = path.read_bytes()
    for cut in (3, 20, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="not a complete safetensors"):
            WordVectors.load(path)
    path.write_bytes(whole)
    (tmp_path / "v.parquet").unlink()
    with pytest.raises(DataError, match="words are expected in v.parquet"):
        WordVectors.load(path)


def test_files_of_no_numbers_are_refused(tmp_path):
    pl.DataFrame({"word": WORDS}).write_parquet(tmp_path / "v.parquet")
    for vectors, message in (
        (np.full((7, 2), np.nan, "f4"), "numbers that are not finite"),
        (np.zeros((7, 0), "f4"), "is empty"),
    ):
        np.save(tmp_path / "v.npy", vectors)
        with pytest.raises(DataError, match=message):
            WordVectors.load(tmp_path / "v.npy")
    (tmp_path / "v.safetensors").write_bytes((9000).to_bytes(8, "little") + b"[" * 9000)
    (tmp_path / "v.txt").write_bytes(b"9" * 5000 + b" 2\na 1 2\n")
    with pytest.raises(DataError, match="not a complete safetensors"):
        WordVectors.load(tmp_path / "v.safetensors")
    assert WordVectors.load(tmp_path / "v.txt").dim == 1  # too long to be a count of words, so it is one


def test_unknown_names_and_words_say_what_there_is(tmp_path):
    with pytest.raises(DataError, match="the names are glove-6b-50d"):
        WordVectors.load("glove")
    with pytest.raises(DataError, match="there is no file"):
        WordVectors.load(tmp_path / "v.txt")
    with pytest.raises(UnknownId, match="word kind is not known; 7 words are"):
        WordVectors.of(pl.Series(WORDS), VECTORS).vector("kind")


class TestNeighbours:
    vectors = WordVectors.of(
        pl.Series([f"w{n}" for n in range(40)]), np.random.default_rng(1).normal(size=(40, 5)).astype("f4")
    )

    def cosine(self, a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def test_they_are_the_best_by_cosine(self):
        own = self.vectors.vector("w3")
        expected = sorted((-self.cosine(own, v), n) for n, v in enumerate(self.vectors.vectors) if n != 3)
        found = self.vectors.similar("w3", 6)
        assert [w for w, _ in found] == [f"w{n}" for _, n in expected[:6]]
        assert [s for _, s in found] == pytest.approx([-s for s, _ in expected[:6]], abs=1e-6)
        assert len(self.vectors.similar("w3", 99)) == 39

    def test_an_analogy_is_of_unit_vectors_and_without_the_three(self):
        unit = {w: self.vectors.vector(w) / np.linalg.norm(self.vectors.vector(w)) for w in self.vectors.words.series}
        wanted = unit["w1"] - unit["w0"] + unit["w2"]
        best = max((w for w in unit if w not in ("w0", "w1", "w2")), key=lambda w: self.cosine(unit[w], wanted))
        assert self.vectors.analogy("w0", "w1", "w2", 1)[0][0] == best

    def test_a_word_is_found_in_lower_case_too(self):
        assert self.vectors.rows(["W5", "w5", "nothing"]).tolist() == [5, 5, -1]

    def test_agreement_and_accuracy_leave_out_the_unknown(self):
        from scipy.stats import spearmanr

        pairs = [(f"w{a}", f"w{b}", float(a + b)) for a, b in ((0, 1), (2, 3), (4, 9), (7, 8))]
        scores = [self.cosine(self.vectors.vector(a), self.vectors.vector(b)) for a, b, _ in pairs]
        found = self.vectors.evaluate_word_pairs([*pairs, ("w0", "nobody", 3.0)])
        assert found == {
            "spearman": pytest.approx(spearmanr(scores, [p[2] for p in pairs]).statistic), "pairs": 4, "left_out": 1
        }  # fmt: skip
        asked = [
            ("w0", "w1", "w2", self.vectors.analogy("w0", "w1", "w2", 1)[0][0]),
            ("w0", "w1", "w2", "w7"),
            ("x",) * 4,
        ]
        assert self.vectors.evaluate_word_analogies(asked) == {"accuracy": 0.5, "questions": 2, "left_out": 1}
        with pytest.raises(DataError, match="none of the 1"):
            self.vectors.evaluate_word_analogies(asked[:1], restrict_vocab=2)


def test_word_tests_are_told_apart(tmp_path):
    path = tmp_path / "t"
    path.write_text("# notes\nWord 1,Word 2,Human (mean)\nlove,sex,6.77\ntiger,cat,7\n")
    assert read_word_test(path) == ([("love", "sex", 6.77), ("tiger", "cat", 7.0)], [])
    path.write_text(": capitals\nAthens Greece Baghdad Iraq\n")
    assert read_word_test(path) == ([], [("Athens", "Greece", "Baghdad", "Iraq")])
    path.write_text("a\tb\t1\nc\td\n")
    with pytest.raises(DataError, match="line 2 is neither"):
        read_word_test(path)
    path.write_text("nothing\n")
    with pytest.raises(DataError, match="has no line of two words"):
        read_word_test(path)


def test_words_are_learnt_from_texts():
    from recsys_embed.words.training import train_words

    texts = pl.Series(["A king and a queen rule.", "the cat and the dog play"] * 30)
    one, other = (train_words(texts, dim=8, epochs=3, seed=1) for _ in range(2))
    assert one.dim == 8 and "queen" in one.words and np.array_equal(one.vectors, other.vectors)
    with pytest.raises(DataError, match="no word occurs 99 times"):
        train_words(texts.head(2), min_count=99)


@pytest.mark.slow
def test_a_picture_of_words_is_drawn(tmp_path):
    from PIL import Image

    from recsys_embed.plots.words import plot_words

    words = ["w1", "w2", "w3", "w4"]
    path = plot_words(TestNeighbours.vectors, words, tmp_path / "w.png", neighbours=2)
    with Image.open(path) as image:
        assert image.width > 1000
    drawn = plot_words(TestNeighbours.vectors, words, tmp_path / "w.svg", neighbours=2).read_text()
    assert all(drawn.count(f">{word}<") == 2 for word in words), "every word stands once in each of the two views"
    nearest = {near for word in words for near, _ in TestNeighbours.vectors.similar(word, 2)} - set(words)
    assert sum(f">{near}<" in drawn for near in nearest) > len(nearest) / 2
    assert sorted(f.name for f in tmp_path.iterdir()) == ["w.png", "w.svg"]
    with pytest.raises(UnknownId):
        plot_words(TestNeighbours.vectors, ["w1", "w2", "nobody"], tmp_path / "x.png")
    with pytest.raises(DataError, match="cannot be written"):
        plot_words(TestNeighbours.vectors, words, tmp_path / "nowhere" / "x.png")
