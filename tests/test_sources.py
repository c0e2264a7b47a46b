"""Data as it lies there: dialects, packings, folders, JSON, standard input and addresses give the same rows."""

import bz2
import contextlib
import gzip
import http.server
import io
import json
import lzma
import sys
import threading
import zipfile

import polars as pl
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import recsys_here

from recsys_embed.config.fields import short_name
from recsys_embed.errors import DataError, SettingError
from recsys_embed.sources.load import load_dataset
from recsys_embed.sources.read import read_table

ROWS = [("7", "a b", "4.5", "1500000100"), ("7", "ç", "3", "1500000200"), ("8", "ç", "1", "1500000300")]
WANTED = [(7, "a b", 4.5, 1500000100), (7, "ç", 3.0, 1500000200), (8, "ç", 1.0, 1500000300)]
NAMES = ("user", "item", "rating", "time")


def table(separator=",", end="\n", header=NAMES, rows=ROWS):
    return end.join(separator.join(row) for row in ([header] if header else []) + list(rows)) + end


def rows_of(location, **options):
    return load_dataset(str(location), **options).ratings.frame().sort("timestamp").rows()


DIALECTS = {
    "semicolons": table(";").replace("4.5", "4,5"),
    "semicolons, no header": table(";", header=None).replace("4.5", "4,5"),
    "decimal commas in quotes": table().replace("4.5", '"4,5"'),
    "all in quotes": "\n".join(",".join(f'"{f}"' for f in row) for row in (NAMES, *ROWS)),
    "all in single quotes": "\n".join(",".join(f"'{f}'" for f in row) for row in (NAMES, *ROWS)),
    "tabs and quotes": "\n".join("\t".join(f'"{f}"' for f in row) for row in (NAMES, *ROWS)),
    "bars": table("|"),
    "windows": table(end="\r\n"),
    "old macs": table(end="\r"),
    "excel": "sep=;\r\n" + table(";", "\r\n"),
    "trailing": table(end=",\n"),
    "trailing but in the header": table().replace("\n", ",\n").replace(",\n", "\n", 1),
    "trailing, no header": table(end=",\n", header=None),
    "trailing twice": table(end=",,\n"),
    "row numbers": "\n".join(",".join(row) for row in [("", *NAMES), *((str(n), *r) for n, r in enumerate(ROWS))]),
    "commas in titles": table("\t").replace("a b", "a b"),
    "comments": "# a, b\n%\n" * 2000 + table(),
    "rating last": table(header=None, rows=[(u, i, t, r) for u, i, r, t in ROWS]),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le"])
def test_every_dialect_in_every_encoding_gives_the_same_rows(tmp_path, name, encoding):
    (tmp_path / "r.csv").write_bytes(DIALECTS[name].encode(encoding))
    assert rows_of(tmp_path / "r.csv") == WANTED


def test_blanks_and_tabs_in_any_number_separate(tmp_path):
    (tmp_path / "r.txt").write_text("  user  item\trating \n 7   a   4.5\n 8 \t ç    1\n", encoding="utf-8")
    assert load_dataset(str(tmp_path / "r.txt")).ratings.frame().rows() == [(7, "a", 4.5), (8, "ç", 1.0)]


def test_windows_1252_keeps_quotes_and_latin_1_its_five_bytes(tmp_path):
    (tmp_path / "r.csv").write_bytes("user,item\n1,“x”\n2,€\n".encode("cp1252"))
    assert load_dataset(str(tmp_path / "r.csv")).ratings.items.series.to_list() == ["“x”", "€"]
    (tmp_path / "r.csv").write_bytes(b"user,item\n1,\x81\n2,\x8d\xe9\n3,\x8f\xe9\n")
    assert len(load_dataset(str(tmp_path / "r.csv")).ratings.items) == 3, "no two ids become one"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("user,item\n1,x;y\n2,z\n3,x;y\n", ["x;y", "z"]),
        ('user,item,t\n1,"x, ""1""",a\tb\n2,z,c\n', ['x, "1"', "z"]),
        ("1\t12\t4,5\n2\t13\t3,5\n", [12, 13]),
        ("1;12;4,5\n2;13;3,5\n", [12, 13]),
        ("user;item\n1;1,234\n2;1,235\n", ["1.234", "1.235"]),
        ("user;item\n1;a,5\n2;1,5\n", ["1,5", "a,5"]),
        ("ann,x,2024-01-02\nann,y,2024-01-03\n", ["x", "y"]),
        ("ann,x\nbob,x\nann,y\n", ["x", "y"]),
    ],
)
def test_separators_quotes_and_headers_are_told_from_values(tmp_path, text, items):
    (tmp_path / "r.csv").write_text(text)
    assert load_dataset(str(tmp_path / "r.csv")).ratings.items.series.to_list() == items


def test_a_thousand_is_no_decimal(tmp_path):
    (tmp_path / "r.csv").write_text('user,item,rating\n1,2,"1,234"\n2,3,"5,678"\n')
    with pytest.raises(DataError, match="rating '1,234' is not a number in lines 2, 3"):
        load_dataset(str(tmp_path / "r.csv"))


STARTS = [b"{", b"[", b"\xff\xfe", b"PK\x03\x04", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"sep=;\n"]


def zstd(data):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PACKINGS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "zip": lambda data: zipped({"README.txt": b"no table", "__MACOSX/._r.csv": b"", "r.csv": data}),
    "zip.gz": lambda data: gzip.compress(zipped({"r.csv.gz": gzip.compress(data)})),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_every_packing_is_undone_and_one_cut_short_is_named(tmp_path, name):
    path, data = tmp_path / f"r.{name}", PACKINGS[name](table().encode() * 1)
    path.write_bytes(data)
    assert rows_of(path) == WANTED
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=f"r.{name} is not a complete "):
        load_dataset(str(path))


def test_a_zip_of_a_method_that_python_lacks_is_named(tmp_path):
    data = bytearray(zipped({"r.csv": table()}))
    for start in (data.index(b"PK\x03\x04") + 8, data.index(b"PK\x01\x02") + 10):
        data[start : start + 2] = (9).to_bytes(2, "little")  # Deflate64, of Windows' large archives
    (tmp_path / "r.zip").write_bytes(data)
    with pytest.raises(DataError, match="packed by a method that Python does not read: unpack it first"):
        read_table(tmp_path / "r.zip")


def test_a_zip_of_several_tables_names_them_and_takes_a_name(tmp_path):
    path = tmp_path / "ml.zip"
    path.write_bytes(zipped({"ml/ratings.csv": table(), "ml/links.csv": "a,b\n1,2\n", "ml/README.txt": ""}))
    with pytest.raises(
        DataError, match=r"name one of them, such as .*ml.zip/ml/ratings.csv \(ml/ratings.csv, ml/links"
    ):
        load_dataset(str(path))
    assert rows_of(f"{path}/ml/ratings.csv") == WANTED
    with pytest.raises(DataError, match="holds no tags.csv; it holds ml/ratings.csv"):
        load_dataset(f"{path}/tags.csv")


@pytest.mark.parametrize("kind", ["csv", "csv, one header", "parquet", "jsonl", "mixed"])
def test_parts_in_a_folder_or_by_a_pattern_are_one_table(tmp_path, kind):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "_SUCCESS").write_text("")
    (folder / ".part.crc").write_text("x")
    (folder / "import.log").write_text("all went well")
    frame = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    typed = frame.with_columns(pl.col("user", "time").cast(pl.Int64), pl.col("rating").cast(pl.Float64))
    for n in range(3):
        if kind == "parquet" or (kind == "mixed" and n == 1):
            typed[n : n + 1].write_parquet(folder / f"part-{n}.parquet")
        elif kind == "jsonl":
            typed[n : n + 1].write_ndjson(folder / f"part-{n}.jsonl")
        else:
            columns = NAMES if n != 1 or kind != "csv" else NAMES[::-1]  # in another order
            frame[n : n + 1].select(columns).write_csv(
                folder / f"part-{n}.csv", include_header=n == 0 or kind != "csv, one header"
            )
    assert rows_of(folder) == rows_of(folder / "part-*") == WANTED


def test_folders_named_after_a_column_give_it(tmp_path):
    for event in ("view", "buy"):
        (tmp_path / "log" / f"event={event}").mkdir(parents=True)
        (tmp_path / "log" / f"event={event}" / "a.csv").write_text(f"user,item\n1,{event}1\n2,{event}2\n")
    log = load_dataset(str(tmp_path / "log"), event_col="event").log
    assert log is not None and sorted(t.name for t in log.types) == ["buy", "view"]


def test_errors_in_parts_name_the_file_and_the_line(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n1,2,3\n1,3,4\n")
    (tmp_path / "b.csv").write_text("user,item,rating\n1,2,3\n1,3,bad\n")
    with pytest.raises(DataError, match=r"'bad' is not a number in line 3 of .*b\.csv"):
        load_dataset(str(tmp_path))
    (tmp_path / "b.csv").write_text("user,item,stars\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"b\.csv has the columns user, item, stars, but .*a\.csv has user, item, rating"
    ):
        load_dataset(str(tmp_path))
    pl.DataFrame({"user": ["x"], "item": [1]}).write_parquet(tmp_path / "c.parquet")
    pl.DataFrame({"user": [1], "item": [1]}).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"'user' holds text in .*c\.parquet, but numbers in .*d\.parquet"):
        load_dataset(str(tmp_path / "*.parquet"))
    with pytest.raises(DataError, match="no file matches"):
        load_dataset(str(tmp_path / "*.tsv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no table"):
        load_dataset(str(tmp_path / "empty"))


OBJECTS = [dict(zip(NAMES, (u, i, float(r), int(t)), strict=True)) for u, i, r, t in ROWS]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        "\n".join(map(json.dumps, OBJECTS)),
        "\n".join(
            json.dumps(row | {"artist": {"id": 1}, "style": {"size": 1}, "images": [{"url": ""}], "tags": ["x"]})
            for row in OBJECTS
        ),
    ],
)
def test_json_lists_and_lines_give_the_same_rows(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    assert [(int(u), *rest) for u, *rest in rows_of(tmp_path / "r.json")] == WANTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user": {"id": 1}, "item": 2}\n' * 2, r"nested objects \(id\).*jq -c '. \+ {user: .user.id}'"),
        ('{"a": {"id": 1}}\n{"a": {"id": 2}}\n', "'a' holds nested objects"),
        ('{"user": 1, "item": 2}\n{"user": 1,\n', "line 2 is not JSON"),
        ("{'user': 1, 'item': 2}\n", r"line 1 is not JSON \(JSON has double quotes\)"),
        ('{"reviews": [{"user": 1}]}', "a single JSON object with reviews"),
        ("[[1, 2], [3, 4]]", "is not JSON that holds a table: one object a line"),
        ('[{"user": 1}', "is not JSON that holds a table"),
    ],
)  # fmt: skip
def test_other_json_says_what_to_do(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(str(tmp_path / "r.json"))
    assert "\n" not in str(error.value)


@given(
    st.binary(max_size=200),
    st.sampled_from(STARTS),
)
def test_no_bytes_break_a_reader(tmp_path_factory, data, start):
    path = tmp_path_factory.mktemp("fuzz") / "r"
    path.write_bytes(start + data)
    with contextlib.suppress(DataError):
        assert isinstance(read_table(path).frame, pl.DataFrame)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"%PDF-1.4", "PDF"), (b"\xd0\xcf\x11\xe0", "old Excel"), (b"<html>", "HTML"), (b"\x80\x04x", "pickle")],
)
def test_other_formats_are_named(tmp_path, data, message):
    (tmp_path / "r.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path / "r.csv"))


class _Pipe(io.TextIOWrapper):
    def isatty(self):
        return False


def test_standard_input_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Pipe(io.BytesIO(gzip.compress(table().encode()))))
    assert rows_of("-") == WANTED
    with pytest.raises(DataError, match="standard input is empty"):
        load_dataset("-")
    with pytest.raises(SettingError, match="can be read once"):
        load_dataset("-", items="-")
    assert short_name("-") == "stdin"


@pytest.fixture
def web(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = tmp_path / self.path.partition("?")[0][1:]
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses_are_read_and_offline_forbids_them(tmp_path, web):
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(table().encode()))
    frame = pl.DataFrame(WANTED, schema=["user", "item", "rating", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "r.parquet")
    for location in (
        f"{web}/r.csv.gz?token=x",
        f"{web}/r.parquet",
        f"file://{tmp_path}/r.parquet",
        f"file://{tmp_path}/r.csv.gz",
    ):
        assert rows_of(location) == WANTED
    with pytest.raises(DataError, match="nothing.csv cannot be read: 404"):
        load_dataset(f"{web}/nothing.csv")
    with pytest.raises(SettingError, match="--offline forbids the network"):
        load_dataset(f"{web}/r.parquet", offline=True)


def test_object_stores_are_left_to_polars(monkeypatch):
    seen = []
    frame = pl.DataFrame(WANTED, schema=["user", "item", "rating", "timestamp"], orient="row")
    monkeypatch.setattr(pl, "read_parquet", lambda address: seen.append(address) or frame)
    monkeypatch.setattr(
        pl, "read_lines", lambda address: seen.append(address) or pl.DataFrame({"line": table().splitlines()})
    )
    for address in ("s3://shop/part-*.parquet", "gs://shop/r.csv"):
        assert rows_of(address) == WANTED
    assert seen == ["s3://shop/part-*.parquet", "gs://shop/r.csv"]


TINY = "--epochs 1 --dim 4 --model-family embeddings --no-baselines --no-refit --resamples 0 --no-track --out m".split()


def test_a_file_is_an_argument_and_the_printed_command_runs_again(tmp_path):
    load_dataset("synthetic:users=20,items=15,ratings=100").ratings.frame().write_csv(tmp_path / "r.csv")
    first = recsys_here("train", "r.csv", *TINY, "--json", cwd=tmp_path)
    again = recsys_here("train", "--dataset", "r.csv", *TINY, "--json", cwd=tmp_path)
    one, other = json.loads(first.stdout), json.loads(again.stdout)
    assert one["metrics"] == other["metrics"] and one["dataset"] == "r.csv"
    command = json.loads((tmp_path / "m" / "model.json").read_text())["command"]
    assert command.startswith("recsys train --dataset r.csv ")
    checked = recsys_here("data", "check", "r.csv", "--json", cwd=tmp_path)
    assert json.loads(checked.stdout)["dataset"] == "r.csv"
    for call in (("train",), ("data", "check"), ("tune",)):
        both = recsys_here(*call, "r.csv", "--dataset", "other.csv", cwd=tmp_path, code=2)
        assert both.stderr.strip() == "error: r.csv and --dataset both name the data: give one of them"
