"""Word vectors are trained from plain text of any form and size, and unknown words get vectors from their n-grams."""

import bz2
import errno
import gzip
import io
import json
import lzma
import sys

import numpy as np
import polars as pl
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import recsys_here

from recsys_embed.errors import DataError, SettingError, UnknownId
from recsys_embed.sources import texts as texts_module
from recsys_embed.sources.texts import read_texts, text_files
from recsys_embed.words import corpus as corpus_module
from recsys_embed.words.corpus import Corpus
from recsys_embed.words.subwords import ngram_hash, ngrams
from recsys_embed.words.tokens import split_labels
from recsys_embed.words.training import train_words
from recsys_embed.words.vectors import WordVectors

LINES = ["A king and a queen rule.", "", "The cat, the dog: they play!", "Käse aus 日本", "it's late"]
TEXT = "\n".join(LINES)
TOKENS = [["a", "king", "and", "a", "queen", "rule"], ["the", "cat", "the", "dog", "they", "play"]]
TOKENS += [["käse", "aus", "日本"], ["it", "late"]]


def zstd(data):
    return pyarrow.compress(data, codec="zstd", asbytes=True)


FORMS = {
    "plain": TEXT.encode(),
    "windows": TEXT.replace("\n", "\r\n").encode(),
    "mark of order": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "gzip": gzip.compress(TEXT.encode()),
    "two gzip members": gzip.compress(TEXT[:30].encode()) + gzip.compress(TEXT[30:].encode()),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "zstd": zstd(TEXT.encode()),
}


@pytest.mark.parametrize("block", [1 << 22, 31], ids=["one block", "many"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_words(tmp_path, form, block, monkeypatch):
    monkeypatch.setattr(texts_module, "_BLOCK", block)
    (tmp_path / "corpus").write_bytes(FORMS[form])
    found = Corpus(tmp_path / "corpus")
    assert list(found) == TOKENS == list(found)
    assert found.texts == 4 and found.tokens == sum(map(len, TOKENS)) == sum(found.counts.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))), st.integers(1, 40))
def test_blocks_of_any_size_hold_the_same_words(lines, block):
    """Longer lines are cut, but never inside a word: the words, in order, are the same."""
    whole = [word for words in Corpus(iter(lines)) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_module, "_BLOCK", 4096)  # one block for the head; then small ones
        blocks = list(texts_module._blocks(iter(["\n".join(lines).encode()])))
        assert b"".join(blocks) == "\n".join(lines).encode()
    data = " ".join(word for line in lines for word in line.split(" ")).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_module, "_BLOCK", block)
        chunks = (data[at : at + block] for at in range(0, len(data), block))
        cut = list(texts_module._blocks(chunks))
    assert b"".join(cut) == data
    assert all(not piece or piece.endswith((b" ", b"\t")) or b" " not in piece for piece in cut[:-1])
    assert whole == [word for words in Corpus(pl.Series(lines, dtype=pl.String)) for word in words]


def test_a_text_without_ends_of_lines_is_cut_at_blanks(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "_BLOCK", 64)
    words = [f"word{n}" for n in range(400)]
    (tmp_path / "text8").write_text(" ".join(words))
    found = list(Corpus(tmp_path / "text8"))
    assert [word for line in found for word in line] == words
    assert max(len(" ".join(line)) for line in found) <= 128


@pytest.mark.parametrize("block", range(4, 17))
def test_a_text_without_blanks_is_cut_between_characters(tmp_path, monkeypatch, caplog, block):
    caplog.set_level("INFO")
    monkeypatch.setattr(texts_module, "_BLOCK", block)
    text = "漢é字a🙂かñ" * 9
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    found = [line for lines in read_texts(tmp_path / "line.txt") for line in lines]
    assert "".join(found) == text and len(found) > 1
    assert "not UTF-8" not in caplog.text


def test_a_long_text_is_passed_on_in_pieces_that_gensim_reads_whole():
    found = list(Corpus(["word " * 25_000]))
    assert [len(words) for words in found] == [10_000, 10_000, 5_000]


def test_folders_and_patterns_and_standard_input(tmp_path, monkeypatch):
    for name in ("b.txt", "deep/a.txt.gz", ".hidden/c.txt", "notes.md", "table.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        data = f"words of {name}\n".encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [p.name for p in text_files(str(tmp_path))] == ["b.txt", "a.txt.gz"]
    assert list(read_texts(tmp_path)) == [["words of b.txt"], ["words of deep/a.txt.gz"]]
    assert list(read_texts(tmp_path / "*.md")) == [["words of notes.md"]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT.encode()))))
    assert list(Corpus("-")) == TOKENS


def test_iterables_and_columns_are_texts():
    for texts in (LINES, iter(LINES), pl.Series("plot", LINES), [*LINES[:3], None, *LINES[3:]]):
        assert list(Corpus(texts)) == TOKENS
    with pytest.raises(DataError, match="texts must be strings, one a text, got list"):
        Corpus([["a", "king"]])


def test_lines_of_another_encoding_are_read_one_by_one(tmp_path, caplog):
    (tmp_path / "t").write_bytes("Käse\n".encode() + "Käse\n".encode("latin-1"))
    with caplog.at_level("INFO", "recsys_embed"):
        assert list(Corpus(tmp_path / "t")) == [["käse"], ["käse"]]
    assert "1 lines are not UTF-8" in caplog.text


def test_a_large_corpus_goes_to_disk_and_progress_reaches_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "_IN_MEMORY", 10)
    monkeypatch.setattr(texts_module, "_BLOCK", 1000)
    (tmp_path / "c.txt").write_text("the cat and the dog play\n" * 400)
    seen = []
    train_words(tmp_path / "c.txt", dim=4, epochs=3, progress=lambda *given: seen.append(given))
    reading, training = ([s for s in seen if s[3] == unit] for unit in ("MB", "words"))
    assert len(reading) > 5 and reading[-1][0] == reading[-1][1] == pytest.approx(0.01)
    assert training[-1][:2] == (7200, 7200)
    assert [s[0] for s in training] == sorted(s[0] for s in training)


def test_the_rarest_words_are_dropped_while_too_many_are_counted(monkeypatch):
    monkeypatch.setattr(corpus_module, "_MAX_COUNTED", 50)
    monkeypatch.setattr(corpus_module, "_BATCH", 10)
    found = Corpus([f"often rare{n} twice{n // 2}" for n in range(200)])
    assert len(found.counts) <= 50 and found.counts["often"] == 200
    assert "rare0" not in found.counts


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"id,plot\n1,a\n", "is a table: name the column of texts by --column"),
        ("t", b"PAR1\0\0", "is Parquet, a table: name the column"),
        ("t.txt", b"\x89PNG\0\0\0", "is not text"),
        ("t.pdf", b"%PDF-1.7", "is a PDF: save its text"),
        ("t.txt.gz", gzip.compress(b"word " * 900)[:-20], "is not a complete gzip file"),
        ("t.txt.bz2", bz2.compress(TEXT.encode())[:-9], "is not a complete bzip2 file"),
        ("t.txt.xz", lzma.compress(TEXT.encode())[:-9], "is not a complete xz file"),
        ("t.txt.zst", zstd(bytes(range(33, 126)) * 99)[:-9], "is not a complete Zstandard file"),
        ("t.zip", b"PK\x03\x04\0", "is a zip archive: unpack it first"),
        ("t.txt", "word\n".encode("utf-16")[:-1], "is UTF-16 text that was cut"),
        ("t.txt", b"", "no word occurs 3 times in these texts: they have 0 words"),
        ("t.txt", b"one two\n", "no word occurs 3 times in these texts: they have 2 words"),
    ],
)
def test_what_is_no_text_is_refused_in_a_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    done = recsys_here("words", "train", "--text", name, cwd=tmp_path, code=3)
    assert message in done.stderr and done.stderr.count("\n") <= 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "words.safetensors").exists()


def test_what_is_not_there_is_said(tmp_path):
    for place, message in (
        ("nowhere.txt", "there is no file nowhere.txt"),
        (".", "the folder . holds no .txt file"),
        ("*.txt", "no file matches *.txt"),
        ("https://example.org/corpus.txt", "download it"),
    ):
        assert message in recsys_here("words", "train", "--text", place, cwd=tmp_path, code=3).stderr


@pytest.mark.parametrize("method", ["word2vec", "fasttext"])
def test_plain_text_and_a_column_of_the_same_texts_give_the_same_vectors(tmp_path, method):
    lines = ["a king and a queen rule", "the cat and the dog play"] * 30
    (tmp_path / "c.txt").write_text("\n".join(lines))
    pl.DataFrame({"id": range(60), "plot": lines}).write_csv(tmp_path / "t.csv")
    options = ("--method", method, "--dim", "6", "--epochs", "2", "--json")
    for name, source in (("plain", ("c.txt",)), ("table", ("t.csv", "--column", "plot"))):
        out = ("--out", f"{name}.safetensors")
        done = recsys_here("words", "train", "--text", *source, *options, *out, cwd=tmp_path)
        assert json.loads(done.stdout) == {"out": f"{name}.safetensors", "words": 9, "dim": 6}
    plain, table = (WordVectors.load(tmp_path / f"{name}.safetensors") for name in ("plain", "table"))
    assert plain.words == table.words and np.array_equal(plain.vectors, table.vectors)
    assert (plain.subwords is not None) == (method == "fasttext")


def test_texts_with_fasttexts_labels_are_classified(tmp_path):
    lines = ["__label__Good __label__short warm and clever film", "__label__bad dull and noisy film", "no label here"]
    (tmp_path / "reviews.txt").write_text("\n".join(lines * 40))
    run = ("words", "classify", "--text", "reviews.txt", "--epochs", "3", "--json")
    result = json.loads(recsys_here(*run, cwd=tmp_path).stdout)
    assert set(result["labels"]) == {"good", "short", "bad"} and result["texts"] == 24
    (tmp_path / "reviews.txt").write_text("no label\n")
    assert "has a __label__NAME" in recsys_here(*run, cwd=tmp_path, code=3).stderr


def test_labels_are_labels_wherever_they_stand():
    lines = ["__label__A two brothers", "two __label__b brothers __label__B", "__label__c", "no __label__ of__label__d"]
    texts, labels = split_labels(pl.Series(lines), "f")
    assert labels == [["a"], ["b"], ["c"], []]
    assert [text.split() for text in texts] == [["two", "brothers"]] * 2 + [[], lines[3].split()]


def test_an_error_of_the_callers_own_texts_stays_as_it_is():
    def texts():
        yield "a text"
        raise TimeoutError("the database is gone")

    with pytest.raises(TimeoutError, match="database"):
        Corpus(texts())


def test_a_full_temporary_folder_is_said(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    corpus = Corpus(["a"])
    monkeypatch.setattr(type(corpus._file), "write", full)
    with pytest.raises(DataError, match="cannot be kept in .* No space left on device; TMPDIR"):
        Corpus(["a text"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"workers": 0}, "workers must be a whole number from 1 up, got 0"),
        ({"dim": 0}, "dim must be a whole number from 1 up"),
        ({"dim": 2.5}, "dim must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"min_count": -1}, "min_count must be"),
        ({"seed": -1}, "seed must be a whole number from 0 up"),
        ({"method": "glove"}, "method must be one of word2vec, fasttext, got 'glove'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(option, message):
    with pytest.raises(SettingError, match=message):
        train_words(iter(lambda: 1 / 0, None), **option)


class TestSubwords:
    @pytest.fixture(scope="class")
    def vectors(self):
        texts = ["the teacher teaches the pupils", "the painter paints the walls", "日本語 text"] * 40
        return train_words(texts, "fasttext", dim=8, epochs=2)

    def test_a_word_has_the_n_grams_of_fasttext(self):
        assert ngrams("cat") == ["<ca", "cat", "at>", "<cat", "cat>", "<cat>"]

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9))
    def test_the_hash_is_that_of_gensim(self, word):
        from gensim.models.fasttext import ft_ngram_hashes

        assert sorted(ngram_hash(n) % 1_000_003 for n in ngrams(word)) == sorted(ft_ngram_hashes(word, 3, 6, 1_000_003))

    def test_they_are_the_n_grams_of_the_vocabulary_and_no_others(self, vectors):
        found = {ngram_hash(n) % vectors.subwords.buckets for word in vectors.words.series for n in ngrams(word)}
        assert vectors.subwords.rows.tolist() == sorted(found)
        assert vectors.subwords.vectors.shape == (len(found), vectors.dim)

    def test_an_unknown_word_is_the_mean_of_its_known_n_grams(self, vectors):
        rows = [ngram_hash(n) % vectors.subwords.buckets for n in ngrams("teachers")]
        table = dict(zip(vectors.subwords.rows.tolist(), vectors.subwords.vectors, strict=True))
        wanted = np.mean([table[row] for row in rows if row in table], axis=0)
        np.testing.assert_allclose(vectors.vector("teachers"), wanted, rtol=1e-4, atol=1e-7)
        assert np.array_equal(vectors.vector("TEACHERS"), vectors.vector("teachers"))
        assert len(vectors.similar("teachers", 3)) == 3
        assert vectors.analogy("teachers", "teaches", "painters", 1)

    def test_they_are_saved_and_read_back(self, vectors, tmp_path, monkeypatch):
        vectors.save(tmp_path / "v.safetensors")
        found = WordVectors.load(tmp_path / "v.safetensors")
        assert np.array_equal(found.vector("teachers"), vectors.vector("teachers"))
        assert found.similar("teachers") == vectors.similar("teachers")
        shown = recsys_here("words", "similar", "teachers", "--vectors", "v.safetensors", cwd=tmp_path)
        assert "its vector comes from its n-grams" in shown.stderr

    def test_words_without_a_known_n_gram_and_other_methods_refuse(self, vectors):
        with pytest.raises(UnknownId, match="word zzz is not known"):
            vectors.vector("zzz")
        other = train_words(["the teacher teaches"] * 9, dim=4, epochs=1)
        with pytest.raises(UnknownId, match="word teachers is not known"):
            other.similar("teachers")

    def test_facebooks_files_have_them_too(self, tmp_path):
        from gensim.models.fasttext import FastText, save_facebook_model

        model = FastText([["teacher", "teaches"]] * 9, vector_size=4, min_count=1, workers=1, bucket=500)
        save_facebook_model(model, str(tmp_path / "model.bin"))
        found = WordVectors.load(tmp_path / "model.bin")
        np.testing.assert_allclose(found.vector("teachers"), model.wv["teachers"], rtol=1e-4, atol=1e-7)

    def test_damaged_ones_are_refused(self, vectors, tmp_path):
        path = vectors.save(tmp_path / "v.safetensors")
        whole = path.read_bytes()
        for old, new in ((b'"buckets":"', b'"bucketz":"'), (b'"ngram_rows"', b'"ngram_cows"'), (b"I64", b"I32")):
            assert old in whole
            path.write_bytes(whole.replace(old, new, 1))
            with pytest.raises(DataError, match="not a complete safetensors"):
                WordVectors.load(path)
