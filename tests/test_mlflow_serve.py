"""The registered model behind MLflow's own server."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from services import until
from worlds import recsys

from recsys_embed.recommender import Recommender

WORLD = "synthetic:users=80,items=50,ratings=1500"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Train, register and serve a model; give a function that asks the server, and the model."""
    folder = tmp_path_factory.mktemp("served")
    train = ("train", "--dataset", WORLD, "--epochs", "3", "--dim", "8", "--no-baselines", "--no-map")
    report = json.loads(recsys(*train, "--register", "shop@champion", "--json", cwd=folder).stdout)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/shop@champion", "-h", "127.0.0.1"]
    command += ["-p", str(port), "--env-manager", "local"]
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ready():
        assert server.poll() is None, (folder / "log").read_text()
        try:
            return ask("ping")[0] == 200
        except OSError:
            return False

    try:
        until(ready, 120.0)
        yield ask, Recommender.load(folder / report["model"])
    finally:
        server.terminate()
        server.wait(30)


def rows(table, user):
    origin = "session" if user is None else "personal"
    return [
        (user, str(item), title, pytest.approx(score, abs=1e-5), rank, origin)
        for item, title, score, rank in table.select("item_id", "title", "score", "rank").rows()
    ]


@pytest.mark.slow
def test_it_answers_as_the_model_does(served):
    ask, model = served
    people = [{"user_id": 7, "k": 3}, {"likes": "13;6", "k": 4, "user_id": None}, {"user_id": "9", "k": 3}]
    code, body = ask("invocations", {"dataframe_records": people})
    assert code == 200
    want = (
        rows(model.recommend(7, 3), "7")
        + rows(model.recommend_for([6, 13], 4), None)
        + rows(model.recommend(9, 3), "9")
    )
    assert [tuple(line.values()) for line in json.loads(body)["predictions"]] == want
    rules = {"exclude": "13; 6", "include_seen": True}
    code, body = ask("invocations", {"dataframe_split": {"columns": ["user_id"], "data": [["7"]]}, "params": rules})
    want = rows(model.recommend(7, 10, exclude=[13, 6], include_seen=True), "7")
    assert [tuple(line.values()) for line in json.loads(body)["predictions"]] == want


@pytest.mark.slow
def test_old_names_of_columns_and_parameters_reach_the_model(served):
    ask, items = served[0], "1;2;3;4;5;7;8"
    old = ask("invocations", {"dataframe_records": [{"rated": "13=5;6=1"}], "params": {"among": items}})
    new = ask("invocations", {"dataframe_records": [{"ratings": "13=5;6=1"}], "params": {"candidates": items}})
    assert old == new and old[0] == 200
    assert {line["item_id"] for line in json.loads(old[1])["predictions"]} == set(items.split(";"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"dataframe_records": [{"user_id": 4242}], "params": {"on_unknown": "error"}}, "user 4242 is not known"),
        ({"dataframe_records": [{"user": "7"}]}, "the columns of the input are user_id"),
        ({"dataframe_records": [{"user_id": "7", "k": 0}]}, "k must be"),
        ({"dataframe_records": [{"user_id": "7"}], "params": {"diversity": 3}}, "diversity must be from 0 to 1"),
    ],
)
def test_mistakes_are_said(served, body, said):
    code, answer = served[0]("invocations", body)
    assert code == 400 and said in answer.decode()
