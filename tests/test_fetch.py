import hashlib
import http.server
import threading
import zipfile
from functools import partial

import pytest

from recsys_embed.errors import DataError
from recsys_embed.sources import movielens
from recsys_embed.sources.download import DownloadSource, data_dir, fetch


@pytest.fixture
def site(tmp_path):
    """A web server on loopback, and the folder it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pack(path, **files):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(f"pack/{name}", text)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_the_next_source_is_taken_when_one_fails(tmp_path, site, caplog):
    folder, at = site
    digest = pack(folder / "a.zip", ratings="1,2")
    gone = DownloadSource("first", f"{at}/none.zip", {"pack/ratings": "ratings"}, digest)
    wrong = DownloadSource("second", f"{at}/a.zip", {"pack/ratings": "ratings"}, "sha256:" + "0" * 64)
    good = DownloadSource("third", f"{at}/a.zip", {"pack/ratings": "ratings"}, digest)
    target = fetch([gone, wrong, good], tmp_path / "data" / "set")
    assert (target / "ratings").read_text() == "1,2"
    assert "could not be downloaded from first" in caplog.text and "is refused" in caplog.text
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["set"]


def test_a_wrong_digest_leaves_nothing_behind(tmp_path, site):
    folder, at = site
    pack(folder / "a.zip", ratings="1,2")
    bad = DownloadSource("only", f"{at}/a.zip", {"pack/ratings": "ratings"}, "sha256:" + "0" * 64)
    with pytest.raises(DataError, match="could not be downloaded from only"):
        fetch([bad], tmp_path / "data" / "set")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_member_has_a_digest_of_its_own(tmp_path, site):
    folder, at = site
    digest = pack(folder / "a.zip", ratings="1,2")
    source = DownloadSource("s", f"{at}/a.zip", {"pack/ratings": "ratings"}, digest, {"ratings": "sha256:" + "0" * 64})
    with pytest.raises(DataError):
        fetch([source], tmp_path / "data" / "set")
    assert not (tmp_path / "data" / "set").exists()


def test_an_unknown_digest_is_trusted_once(tmp_path, site):
    folder, at = site
    pack(folder / "a.zip", ratings="1,2")
    source = DownloadSource("s", f"{at}/a.zip", {"pack/ratings": "ratings"})
    fetch([source], tmp_path / "data" / "one")
    fetch([source], tmp_path / "data" / "two")
    pack(folder / "a.zip", ratings="1,3")
    with pytest.raises(DataError):
        fetch([source], tmp_path / "data" / "three")
    assert not (tmp_path / "data" / "three").exists()


def test_a_cut_download_and_a_hostile_archive_leave_nothing(tmp_path, site):
    folder, at = site
    pack(folder / "a.zip", ratings="1,2")
    whole = (folder / "a.zip").read_bytes()
    (folder / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder / "evil.zip", "w") as zipped:
        zipped.writestr("../../outside", "x")
    for name in ("cut.zip", "evil.zip"):
        with pytest.raises(DataError):
            fetch([DownloadSource("s", f"{at}/{name}", {"pack/ratings": "ratings"})], tmp_path / "data" / "set")
    assert not (tmp_path / "data" / "set").exists() and not list(tmp_path.rglob("outside"))


def test_offline_forbids_the_network(tmp_path):
    with pytest.raises(DataError, match="--offline"):
        movielens.load("movielens-100k", tmp_path, offline=True)


def test_the_folder_of_downloads(tmp_path, monkeypatch):
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert data_dir() == tmp_path / "cache" / "recsys-embed"
    (tmp_path / "data").mkdir()
    assert data_dir().name == "data"
    monkeypatch.setenv("RECSYS_DATA", "elsewhere")
    assert data_dir().name == "elsewhere" and data_dir("given").name == "given"


FLAGS = "|".join("1" if g in ("Animation", "Children's", "Comedy") else "0" for g in movielens._GENRES)
FILMS = {
    "u.item": f"1|Toy Story (1995)|01-Jan-1995||http://x|{FLAGS}\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n",
    "movies.csv": "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n",
    "movies.dat": "1::Toy Story (1995)::Animation|Children's|Comedy\n",
}


@pytest.mark.parametrize("name", FILMS)
def test_all_forms_of_the_film_table_say_the_same(tmp_path, name):
    folder = tmp_path / "movielens-1m"
    folder.mkdir()
    (folder / name).write_text(FILMS[name])
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,10\n")
    _, films = movielens.load("movielens-1m", tmp_path, offline=True)
    assert films.rows() == [("1", "Toy Story (1995)", 1995, "Animation|Children's|Comedy")]
