"""What is built is what is installed: the wheel and the sdist hold the package, and it runs and has types elsewhere."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import recsys_embed

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
ROOT = CHECKOUT / "recsys_embed"
FILES = {p.relative_to(CHECKOUT).as_posix() for p in ROOT.rglob("*") if p.is_file() and p.parent.name != "__pycache__"}
INFO = f"recsys_embed-{recsys_embed.__version__}.dist-info"


def output(*command, code=0, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a wheel and a sdist, built from a copy: a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("build")
    (folder / "sources").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder / "sources")
    shutil.copytree(ROOT, folder / "sources" / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    output(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "sources")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of an environment in which the wheel is installed; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    inside = folder / "venv" / "bin" / "python"
    output(sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", "--no-deps", wheel)
    site = Path(output(inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = output(inside, "-c", "import recsys_embed; print(recsys_embed.__file__)", env=clean(), cwd=folder)
    assert Path(where).is_relative_to(site)
    return inside


def clean():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if not name.startswith(INFO)} == FILES
    assert {name.split("/")[0] for name in names} == {"recsys_embed", INFO}


def test_the_sdist_holds_the_package_and_what_builds_it(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert FILES | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_metadata_says_what_an_index_shows(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = email.message_from_bytes(archive.read(f"{INFO}/METADATA"))
        scripts = archive.read(f"{INFO}/entry_points.txt").decode()
        assert archive.read(f"{INFO}/licenses/LICENSE") == (CHECKOUT / "LICENSE").read_bytes()
    assert (found["Name"], found["Version"]) == ("recsys-embed", recsys_embed.__version__)
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload(decode=True).decode() == (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert found["License-Expression"] == "MIT" and found["Requires-Python"] == ">=3.11"
    assert found["Summary"] and "\n" not in found["Summary"]
    assert "recsys = recsys_embed.cli.main:main" in scripts


def test_the_installed_package_trains_and_draws_in_another_folder(python, tmp_path):
    def recsys(*words):
        return output(python.with_name("recsys"), *words, cwd=tmp_path, env=clean())

    assert recsys("--version").strip() == f"recsys-embed {recsys_embed.__version__}"
    recsys("train", "--dataset", "synthetic:users=40,items=50,ratings=900", "--epochs", "2", "--no-track", "--json")
    assert recsys("recommend", "--user", "1", "--json")
    recsys("map", "--out", "map")  # the page's parts are files of the package, and so are presets
    assert "<script" in (tmp_path / "map" / "map.html").read_text(encoding="utf-8")
    assert "ml-100k" in recsys("presets")


def test_types_are_seen_from_outside(python, tmp_path):
    (tmp_path / "user.py").write_text(
        "from recsys_embed import Recommender\n"
        "reveal_type(Recommender().recommend(42))\n"
        "Recommender().recommend(42, k='ten')\n"
    )
    command = [sys.executable, "-m", "mypy", "--python-executable", python, "--config-file", "", "user.py"]
    said = output(*command, code=1, cwd=tmp_path, env=clean())
    assert "DataFrame" in said.splitlines()[0] and 'incompatible type "str"; expected "int"' in said
    assert "Found 1 error" in said
