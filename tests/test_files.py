import contextlib
import gzip
import sqlite3

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_embed.config.settings import DataConfig
from recsys_embed.errors import DataError
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_items, read_table
from recsys_embed.storage.table_files import write_table

ROWS = [("7", "a b", "4.5", "100"), ("7", "c", "3", "200"), ("8", "c", "1", "300")]
FORMS = {
    "r.csv": "user_id,item_id,rating,timestamp\n" + "\n".join(",".join(r) for r in ROWS),
    "r.tsv": "userId\tmovieId\trating\ttime\n" + "\n".join("\t".join(r) for r in ROWS) + "\n\n",
    "r.dat": "\n".join("::".join(r) for r in ROWS),
    "atomic.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    + "\n".join("\t".join(r) for r in ROWS),
    "blanks.csv": "user, item, rating, time\n" + "\n".join(", ".join(r) for r in ROWS),
    "snap.tsv": "# Directed graph\n#\n% made up\n"
    + "\n".join("\t".join(r) for r in [("user", "item", "rating", "time"), *ROWS]),
    "bom.csv": "\ufeffuser,item,rating,time\r\n" + "\r\n".join(",".join(r) for r in ROWS),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_ratings(tmp_path, name, packed):
    path = tmp_path / (name + ".gz" * packed)
    data = FORMS[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    columns = "user,item,rating,timestamp" if name == "r.dat" else None
    ratings = load_dataset(str(path), columns=columns).ratings
    assert ratings.frame().sort("timestamp").rows() == [(7, "a b", 4.5, 100), (7, "c", 3.0, 200), (8, "c", 1.0, 300)]


def test_parquet_keeps_its_types(tmp_path, frame):
    frame.write_parquet(tmp_path / "r.parquet")
    back = load_dataset(str(tmp_path / "r.parquet")).ratings.frame().sort("user_id", "item_id")
    assert back["item_id"].to_list() == frame.sort("user_id", "item_id")["item_id"].to_list()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="not a readable Parquet"):
        load_dataset(str(tmp_path / "bad.parquet"))


def test_lists_of_items_become_pairs(tmp_path):
    (tmp_path / "train.txt").write_text("0 5 6 7\n1 6\n2 \n3 5 9 \n")
    frame = load_dataset(str(tmp_path / "train.txt")).ratings.frame().sort("user_id", "item_id")
    assert frame.select("user_id", "item_id").rows() == [(0, 5), (0, 6), (0, 7), (1, 6), (3, 5), (3, 9)]


def test_latin_1_is_read_and_said(tmp_path, caplog):
    (tmp_path / "movies.dat").write_bytes("1::Café::Drama\n2::Plain::Comedy\n".encode("latin-1"))
    with caplog.at_level("INFO"):
        items = read_items(tmp_path / "movies.dat", "id,title,genres")
    assert items.rows() == [("1", "Café", "Drama"), ("2", "Plain", "Comedy")]
    assert "Latin-1" in caplog.text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("letters", [True, False], ids=["in the rows too", "in the header alone"])
def test_names_of_columns_are_read_as_the_rows_are(tmp_path, caplog, encoding, letters):
    caplog.set_level("INFO")
    rows = ["Käufer;Menge;Straße", f"{'ä' if letters else 'a'};1;x", "7;2;y"]
    (tmp_path / "r.csv").write_bytes("\r\n".join(rows).encode(encoding))
    ratings = load_dataset(str(tmp_path / "r.csv"), user_col="Käufer", item_col="Straße", rating_col="Menge").ratings
    assert set(ratings.users.ids([0, 1])) == {"ä" if letters else "a", "7"}
    assert sorted(ratings.value.tolist()) == [1, 2]
    assert caplog.text.count("it was read as Windows-1252") == (encoding == "cp1252")


def test_a_header_of_letters_alone_is_known_by_the_names_that_options_give(tmp_path):
    (tmp_path / "r.csv").write_bytes("Größe,Straße\nx,x\nx,y\ny,x\n".encode())
    assert len(load_dataset(str(tmp_path / "r.csv"), user_col="Größe", item_col="Straße").ratings) == 3


def test_a_latin_1_letter_ends_no_line(tmp_path):
    (tmp_path / "movies.dat").write_bytes(b"1::\x85 film::Drama\n2::Plain::Comedy\n")
    assert read_items(tmp_path / "movies.dat", "id,title,genres").height == 2


def test_a_table_without_a_header_says_what_it_was_taken_for(tmp_path, caplog):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n5\t6\t1\t8\n")
    with caplog.at_level("INFO"):
        assert load_dataset(str(tmp_path / "u.data")).ratings.time.tolist() == [4, 8]
    assert "user, item, rating, timestamp" in caplog.text
    (tmp_path / "wide.csv").write_text("1,2,3,4,5\n")
    with pytest.raises(DataError, match="5 columns: name them with --columns"):
        load_dataset(str(tmp_path / "wide.csv"))
    with pytest.raises(DataError, match="two columns of the same name"):
        load_dataset(str(tmp_path / "u.data"), columns="user,item,item,timestamp")
    with pytest.raises(DataError, match="--columns names 2"):
        load_dataset(str(tmp_path / "u.data"), columns="user,item")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"user,item,rating\n", "no row"),
        (b"user,item,rating\n1,2,3\n1,2,3,4\n", "line 3 has 4 fields, not 3"),
        (b"user,item,rating\n1,2,3\n1,3,bad\n", "'bad' is not a number in line 3"),
        (b"# a\n# b\nuser,item,rating\n1,2,3\n1,2,3,4\n", "line 5 has 4 fields, not 3"),
        (b"# a\n# b\nuser,item,rating\n1,2,3\n1,3,bad\n", "'bad' is not a number in line 5"),
        (b"# nothing else\n", "is empty"),
        (b"#user,thing\n1,2\n", "no column for the item among '#user', 'thing'"),
        (b"user,thing,rating\n1,2,3\n", "no column for the item"),
        (b"user,item\n1\n", "item id is missing in line 2"),
        (b'[{"user": 1}]', "no column for the item"),
        (b"PK\x03\x04 and so on", "not a complete zip archive"),
        (b"user,item,rating\n1,2,3\n\n1,3,bad\n", "'bad' is not a number in line 4"),
        (b"user\x00,item\n", "is not text"),
    ],
)
def test_broken_files_say_where(tmp_path, text, message):
    (tmp_path / "r.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path / "r.csv"))


PLAIN = [
    # As they are written, as they are read, and whether it is said that nothing tells.
    (["1.271,91", "12,5", "3"], [1271.91, 12.5, 3], False),
    (["1,271.91", "12.5", "3"], [1271.91, 12.5, 3], False),
    (["1.271", "12,50"], [1271, 12.5], False),
    (["1,271", "12.50"], [1271, 12.5], False),
    (["1.271.000,5", "-1.271", ""], [1271000.5, -1271, None], False),
    (["1.271.000", "3"], [1271000, 3], False),
    (["1,271,000", "3"], [1271000, 3], False),
    (["0.125", "1.271"], [0.125, 1.271], False),
    (["1.271", "950"], [1.271, 950], True),
    (["12,5", "12.5"], ["12,5", "12.5"], False),
    (["1.271,91", "twelve"], ["1.271,91", "twelve"], False),
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "::"])
@pytest.mark.parametrize(("written", "read", "is_open"), PLAIN)
def test_thousands_and_decimals_are_told_apart_by_the_whole_column(tmp_path, caplog, separator, written, read, is_open):
    caplog.set_level("INFO")
    quote = "" if separator == "::" else '"'
    rows = [["user", "item", "price"], *(["a", "x", f"{quote}{value}{quote}"] for value in written)]
    (tmp_path / "r.csv").write_text("\n".join(map(separator.join, rows)) + "\n")
    column = read_table(tmp_path / "r.csv").frame["price"]
    assert [None if v in (None, "") else type(w)(v) for v, w in zip(column, read, strict=True)] == read
    assert ("which may be 1271 or 1.271: read as 1.271" in caplog.text) == is_open


def test_a_comma_that_nothing_explains_is_said_and_lists_and_articles_stay(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "semicolons.csv").write_text("user;item;price\na;302.758;1,271\nb;402.873;950\n")
    frame = read_table(tmp_path / "semicolons.csv").frame
    assert frame["price"].to_list() == ["1.271", "950"] and "1,271 in column 'price'" in caplog.text
    assert frame["item"].to_list() == ["302.758", "402.873"] and "302" not in caplog.text
    caplog.clear()
    (tmp_path / "commas.csv").write_text('user,price,code,related\na,"1,271",302.758.100,"101,102,103"\n')
    frame = read_table(tmp_path / "commas.csv").frame
    assert frame.row(0) == ("a", "1,271", "302.758.100", "101,102,103") and "left as text" in caplog.text


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("files", [1, 2])
@given(
    before=st.lists(
        st.sampled_from(["", "   ", "\t ", "1,2,3", '1,"2",3', '"a\nb","c\n\n\nd",4', '"x,""y",3,4']), max_size=9
    ),
    after=st.lists(st.sampled_from(["", "  ", "5,6,7"]), max_size=3),
)
def test_a_line_has_the_number_that_an_editor_gives_it(tmp_path_factory, files, ending, before, after):
    folder = tmp_path_factory.mktemp("lines")
    text = "\n".join(["", "user,item,rating", "9,9,5", *before, "9,8,bad", *after])
    (folder / "r.csv").write_bytes(text.replace("\n", ending).encode())
    wanted = next(number for number, line in enumerate(text.split("\n"), 1) if "bad" in line)
    place = rf"line {wanted}\b"
    if files == 2:
        (folder / "a.csv").write_bytes(b"user,item,rating\n\n1,2,3\n")
        place += ".*r.csv"
    with pytest.raises(DataError, match=f"'bad' is not a number in {place}"):
        load_dataset(str(folder if files == 2 else folder / "r.csv"))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_lines_of_json_have_their_numbers_and_may_be_in_windows_1252(tmp_path, caplog, ending, end):
    caplog.set_level("INFO")
    lines = ['{"Käufer": "ä", "item": "x", "rating": "5"}', "", "  ", '{"Käufer": "b", "item": "y", "rating": "bad"}']
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "r.jsonl").write_bytes(("\n".join(lines) + end).replace("\n", ending).encode(encoding))
        with pytest.raises(DataError, match="'bad' is not a number in line 4"):
            load_dataset(str(tmp_path / "r.jsonl"), user_col="Käufer")
        assert read_table(tmp_path / "r.jsonl").frame["Käufer"].to_list() == ["ä", "b"]
        assert ("Windows-1252" in caplog.text) == (encoding == "cp1252")


def test_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"user,item\r\n1,2\r\n   \r\n\t\r\n\r\n3,4\r\n  \r\n")
    assert read_table(tmp_path / "r.csv").frame.rows() == [("1", "2"), ("3", "4")]


def test_missing_files_and_cut_archives(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load_dataset(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="no data set 'movielense'"):
        load_dataset("movielense")
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(b"user,item\n1,2\n" * 50)[:-12])
    with pytest.raises(DataError, match="not a complete gzip"):
        load_dataset(str(tmp_path / "r.csv.gz"))


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "r.csv"
    path.write_bytes(data)
    try:
        assert isinstance(read_table(path).frame, pl.DataFrame)
    except DataError:
        pass


def test_a_file_without_a_value_is_said_or_passed_over(tmp_path):
    (tmp_path / "a.csv").write_text(",")
    with pytest.raises(DataError, match="a.csv holds no value"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("user,item\n1,2\n")
    assert read_table(tmp_path).frame.rows() == [("1", "2")]


def test_held_out_files_share_the_vocabularies(tmp_path):
    (tmp_path / "train.csv").write_text("user,item\n1,10\n2,11\n1,12\n")
    (tmp_path / "valid.csv").write_text("user,item\n1,11\n")
    (tmp_path / "test.csv").write_text("user,item\n2,10\n3,99\n")
    config = DataConfig(str(tmp_path / "train.csv"), valid=str(tmp_path / "valid.csv"), test=str(tmp_path / "test.csv"))
    train, valid, test = load_dataset(config.dataset, config).split(config)
    assert train.users == valid.users == test.users and train.items == test.items
    assert test.frame().select("user_id", "item_id").rows() == [(2, 10), (3, 99)]
    alone = DataConfig(config.dataset, valid=config.valid)
    assert len(load_dataset(alone.dataset, alone).split(alone).test) == 0
    tested = DataConfig(config.dataset, test=config.test, valid_share=0.4)
    train, valid, test = load_dataset(tested.dataset, tested).split(tested)
    assert (len(train), len(valid), len(test)) == (2, 1, 2)


def test_one_text_id_makes_the_ids_of_all_files_text(tmp_path):
    (tmp_path / "train.csv").write_text("user,item\n1,10\n2,11\n")
    (tmp_path / "test.csv").write_text("user,item\n007,10\n")
    config = DataConfig(str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    assert load_dataset(config.dataset, config).ratings.users.series.to_list() == ["007", "1", "2"]


def test_synthetic_is_the_same_everywhere_and_takes_sizes():
    one, other = (load_dataset("synthetic:users=50,items=30,ratings=400,seed=3") for _ in range(2))
    assert one.ratings.digest() == other.ratings.digest()
    assert (len(one.ratings.users), len(one.ratings)) == (50, 400)
    with pytest.raises(ValueError, match="synthetic takes users=N"):
        load_dataset("synthetic:people=3")
    with pytest.raises(ValueError, match="holds from 1 to"):
        load_dataset("synthetic:users=3,items=3,ratings=400")


def test_ids_that_were_floats_are_said(tmp_path, caplog):
    (tmp_path / "r.csv").write_text("user,item\n1.0,5\n2.0,6\n")
    assert load_dataset(str(tmp_path / "r.csv")).ratings.users.is_text
    assert "the user ids look like 1.0" in caplog.text


@pytest.mark.parametrize("blank", [" ", "\t", "\r", "\u00a0", "\u3000"])
def test_blanks_around_a_field_are_none_of_it(tmp_path, blank):
    (tmp_path / "r.csv").write_bytes(f"user,item\n1,a{blank}\n2,{blank}b\n3,a\n".encode())
    assert load_dataset(str(tmp_path / "r.csv")).ratings.items.series.to_list() == ["a", "b"]
    (tmp_path / "r.csv").write_text('user,item\n1,"a\n"\n2,b\n3,a\n')
    assert load_dataset(str(tmp_path / "r.csv")).ratings.items.series.to_list() == ["a", "b"]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet", "r.db"])
def test_an_id_is_the_same_whatever_it_is_read_from(tmp_path, name):
    frame = pl.DataFrame({"user": [" ann", "ann", "bob\t"], "item": ["x ", "y", "\u00a0x"]})
    if name == "r.db":
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE r (user TEXT, item TEXT)")
            connection.executemany("INSERT INTO r VALUES (?, ?)", frame.rows())
            connection.commit()
    else:
        write_table(frame, tmp_path / name)
    ratings = load_dataset(str(tmp_path / name), query="r" if name == "r.db" else None).ratings
    assert ratings.users.series.to_list() == ["ann", "bob"] and ratings.items.series.to_list() == ["x", "y"]


def test_quotes_in_a_header_can_be_named(tmp_path):
    (tmp_path / "r.csv").write_text('user,"the ""item"""\n1,5\n2,6\n')
    assert len(load_dataset(str(tmp_path / "r.csv"), item_col='the "item"').ratings) == 2


@pytest.mark.parametrize("name", ["Bezeichnung", "Product Name", "title", "Titel", "NAME"])
def test_titles_are_found_by_their_usual_names(tmp_path, name):
    (tmp_path / "i.csv").write_text(f"sku;{name};Preis\na;Rad;3,5\n")
    table = read_items(tmp_path / "i.csv")
    assert table.columns == ["item_id", "title", "Preis"] and table["title"].to_list() == ["Rad"]


def test_a_title_as_it_is_written_comes_before_one_in_other_letters(tmp_path):
    (tmp_path / "i.csv").write_text("sku,Title,title\na,no,yes\n")
    assert read_items(tmp_path / "i.csv")["title"].to_list() == ["yes"]


def test_numbers_in_an_item_table_of_text_are_numbers_and_codes_are_not(tmp_path):
    """Whole numbers stay whole; one value that is no number, or begins with zeros, keeps the column as text."""
    columns = {
        "item": ["1", "2", "3"],
        "title": ["1984", "2001", "300"],
        "price": ["17.50", "n/a", "3"],
        "stock": ["0", " 12", ""],
        "ean": ["0012", "4006", "4007"],
        "size": ["38", "39", "XL"],
        "much": ["inf", "1", "2"],
        "day": ["2024-07-14", "2024-07-15", "2024-07-16"],
        "note": ["", "-", "none"],
    }
    pl.DataFrame(columns).write_csv(tmp_path / "items.csv")
    (tmp_path / "r.csv").write_text("user,item\na,1\na,2\nb,3\nb,1\n")
    items = load_dataset(str(tmp_path / "r.csv"), items=str(tmp_path / "items.csv")).items
    assert items["price"].to_list() == [17.5, None, 3.0]
    assert items["stock"].to_list() == [0, 12, None] and items.schema["stock"] == pl.Int64
    for name in ("title", "ean", "size", "much", "day"):
        assert items[name].to_list() == columns[name], name
    typed = pl.DataFrame({"item": [1, 2, 3], "size": ["38", "39", "40"]})  # whoever writes Parquet means its types
    typed.write_parquet(tmp_path / "items.parquet")
    items = load_dataset(str(tmp_path / "r.csv"), items=str(tmp_path / "items.parquet")).items
    assert items["size"].to_list() == ["38", "39", "40"]
