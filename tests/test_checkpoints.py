"""A training that is killed and gone on with ends with the bits of one that never was."""

import os
import random
import signal

import numpy as np
import pytest
from worlds import ITEMS, USERS, small

from recsys_embed.config.settings import ContentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from recsys_embed.errors import BundleError, DataError, SettingError
from recsys_embed.experiment import run as experiment
from recsys_embed.experiment.fit_and_refit import Configs
from recsys_embed.experiment.prepare import prepare
from recsys_embed.experiment.resuming import checkpoints_of
from recsys_embed.experiment.run import run_experiment
from recsys_embed.models.local_ridge import LocalRidge
from recsys_embed.nets.two_tower import build_two_tower
from recsys_embed.sources.load import load_dataset
from recsys_embed.storage.bundle import Bundle
from recsys_embed.storage.lease import lease
from recsys_embed.tracking.tracker import Tracker
from recsys_embed.training import gibbs
from recsys_embed.training.autograd_step import AutogradStep
from recsys_embed.training.checkpoints import Checkpoints, Stage
from recsys_embed.training.gibbs import fit_gibbs
from recsys_embed.training.pairwise_step import PairwiseStep
from recsys_embed.training.softmax_step import SoftmaxStep
from recsys_embed.training.trainer import fit


class Killed(BaseException):
    """The end of a process, of which nothing in it hears."""


def bits(model):
    arrays, metadata = model.save()
    return {name: value.tobytes() for name, value in arrays.items()} | metadata


def validate(model):
    """A metric that depends on every bit, and is best anywhere."""
    return {"ndcg_at_10": float(abs(np.sin(1e3 * model.items.sum(dtype=np.float64)))), "rmse": float("nan")}


def train(ratings, kind, checkpoints=None, epochs=6):
    """Train one kind of model."""
    if kind == "gibbs":
        return fit_gibbs(ratings, 4, TrainConfig(epochs=epochs, device="cpu"), checkpoints=checkpoints)
    loss, *more = kind.split()
    given = {"dim": 4, "epochs": epochs, "batch_size": 6, "user_decay": 0.1, "item_decay": 0.2, "dropout": 0.2}
    given |= {"negatives": 3} if loss in ("bpr", "sampled-softmax") else {}
    given |= {"dropout": 0.0} if loss == "bpr" else {}
    given |= {"user_tower": "history", "batch_users": 3} if "history" in more else {}
    given |= {"second_moment": "row"} if "row" in more else {}
    model, config = small(loss, "mlp" if "mlp" in more else "dot", **given)
    net = build_two_tower(model, USERS, ITEMS, 0, None, ContentConfig(), (ratings.seen(), config.history_dropout))
    return fit(net, ratings, config, validate=validate, checkpoints=checkpoints)


KINDS = ("softmax", "sampled-softmax", "bpr", "mse", "softmax mlp", "softmax history", "softmax row", "gibbs")


def killing(monkeypatch, seed):
    """Kill at random moments: within a step, before a state is saved and after. Yields whether to."""
    draw, step, save, sweep = random.Random(seed), {}, Stage.save, gibbs._Chain.sweep
    monkeypatch.setattr(Stage, "due", property(lambda self: draw.random() < 0.5))

    def maybe(do, *args, **given):
        if draw.random() < 0.04:
            raise Killed
        found = do(*args, **given)
        if draw.random() < 0.04:
            raise Killed
        return found

    monkeypatch.setattr(Stage, "save", lambda *a, **k: maybe(save, *a, **k))
    monkeypatch.setattr(gibbs._Chain, "sweep", lambda *a: maybe(sweep, *a))
    for kind in (AutogradStep, PairwiseStep, SoftmaxStep):
        step[kind] = kind.step_on_rows
        monkeypatch.setattr(kind, "step_on_rows", lambda *a, kind=kind: maybe(step[kind], *a))


def until_done(work):
    """Work until it is not killed; return the result, and how often it was."""
    for kills in range(1_000):
        try:
            return work(kills > 0), kills
        except Killed:
            pass
    raise AssertionError("it does not get on")


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_as_if_it_had_never_been_killed(ratings, kind, tmp_path, monkeypatch):
    expected = train(ratings, kind)
    killing(monkeypatch, 1)
    found, kills = until_done(lambda again: train(ratings, kind, Checkpoints(tmp_path / "c", 0, again)))
    assert kills >= 2 and bits(found.model) == bits(expected.model) and found.epochs == expected.epochs
    history = [[{k: v for k, v in m.items() if k not in ("samples_per_s", "rmse")} for m in r.history]
               for r in (found, expected)]  # fmt: skip
    assert history[0] == history[1]
    for kind_of_step in (AutogradStep, PairwiseStep, SoftmaxStep):
        monkeypatch.setattr(kind_of_step, "step_on_rows", lambda *_: pytest.fail("what has ended is not done again"))
    monkeypatch.setattr(gibbs._Chain, "sweep", lambda *_: pytest.fail("what has ended is not done again"))
    assert bits(train(ratings, kind, Checkpoints(tmp_path / "c", 0, True)).model) == bits(expected.model)


def test_ctrl_c_within_a_step_waits_for_a_whole_state(ratings, tmp_path, monkeypatch):
    expected, step, before = train(ratings, "softmax"), SoftmaxStep.step_on_rows, signal.getsignal(signal.SIGTERM)
    came, steps = [], []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    def end(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(SoftmaxStep, "step_on_rows", interrupted)
    signal.signal(signal.SIGTERM, end)
    try:
        found = train(ratings, "softmax", Checkpoints(tmp_path, 1e9))
        assert found.stopped == "interrupted" and came == [signal.SIGTERM] and len(steps) == 9
        assert states(tmp_path) == ["001-000001"], "there was none before"
        assert signal.getsignal(signal.SIGTERM) is end, "the handlers are put back"
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    assert bits(train(ratings, "softmax", Checkpoints(tmp_path, 1e9, True)).model) == bits(expected.model)


def states(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_states_are_kept_and_a_broken_one_is_passed_over(ratings, tmp_path, caplog):
    class Last(Tracker):
        def metrics(self, values, step=None):
            if step == 4:
                raise Killed

    model, config = small("softmax", dim=4, epochs=6, batch_size=6)

    def go(resume, tracker=None):
        return fit(build_two_tower(model, USERS, ITEMS), ratings, config, tracker, validate,
                   checkpoints=Checkpoints(tmp_path, 0, resume))  # fmt: skip

    with pytest.raises(Killed):
        go(False, Last())
    assert len(states(tmp_path)) == 2
    newest = tmp_path / states(tmp_path)[-1] / "arrays.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    found = go(True)
    assert "the one before it is taken" in caplog.text and states(tmp_path) == ["001-done"]
    assert bits(found.model) == bits(fit(build_two_tower(model, USERS, ITEMS), ratings, config, None, validate).model)


def test_a_full_disk_ends_no_training(ratings, tmp_path, caplog, monkeypatch):
    expected = train(ratings, "softmax")

    def full(*_):
        raise BundleError("no space left")

    monkeypatch.setattr(Bundle, "write", full)
    assert bits(train(ratings, "softmax", Checkpoints(tmp_path, 0)).model) == bits(expected.model)
    assert "no checkpoint was written, and the training goes on: no space left" in caplog.text


def test_other_data_is_not_gone_on_with(ratings, tmp_path):
    train(ratings, "softmax", Checkpoints(tmp_path, 0))
    with pytest.raises(DataError, match="without --resume"):
        train(ratings.take(np.arange(len(ratings) - 1)), "softmax", Checkpoints(tmp_path, 0, True))


DATA = DataConfig(dataset="synthetic:users=60,items=40,ratings=900", split="leave-last")


def whole(folder, **given):
    """Run a whole experiment; return its recommender."""
    run = RunConfig(out=str(folder / "m"), track=False, baselines=False, resamples=0, **given)
    train = TrainConfig(epochs=4, batch_users=16)
    return run_experiment(DATA, ModelConfig(dim=4), train, run)[0]


def answers(model):
    return model.recommend(model.users.ids(np.arange(20)).to_list(), 5)


def test_a_whole_training_goes_on_wherever_it_was_killed(tmp_path, monkeypatch):
    expected = whole(tmp_path / "a", for_production=True)
    killing(monkeypatch, 3)
    found, kills = until_done(
        lambda again: whole(tmp_path / "b", for_production=True, checkpoint_every=0.0, resume=again)
    )
    assert kills >= 2 and answers(found).equals(answers(expected))
    assert found.metadata["metrics"]["test"] == expected.metadata["metrics"]["test"]
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["m"], "nothing is left"


@pytest.mark.parametrize("other", ["items", "test", "dim"])
def test_a_training_of_anything_else_starts_at_the_beginning(tmp_path, other):
    """Of other descriptions or test ratings too: what was chosen, and what items are like, may differ."""
    frame = load_dataset(DATA.dataset).ratings.frame()
    frame[:-60].write_csv(tmp_path / "r.csv")

    def folders(dim=4, rows=60, text="b"):
        frame[-rows:].write_csv(tmp_path / "test.csv")
        (tmp_path / "items.csv").write_text(f"item_id,title\n1,a\n2,{text}\n")
        data = DataConfig(str(tmp_path / "r.csv"), items=str(tmp_path / "items.csv"), test=str(tmp_path / "test.csv"))
        run = RunConfig(out=str(tmp_path / "m"), track=False, checkpoint_every=1.0)
        prepared = prepare(data, 0, ContentConfig())
        configs = Configs(data, ModelConfig(dim=dim), TrainConfig(), run, ContentConfig())
        with checkpoints_of(configs, prepared, tmp_path) as checkpoints:
            return checkpoints.folder

    changed = {"items": {"text": "c"}, "test": {"rows": 50}, "dim": {"dim": 5}}[other]
    assert folders() == folders() != folders(**changed)


def test_what_is_interrupted_is_kept_and_says_how_to_go_on(tmp_path, monkeypatch, caplog):
    def killed(*_):
        raise Killed

    caplog.set_level("INFO")
    monkeypatch.setattr(experiment, "training_report", killed)
    with pytest.raises(Killed):
        whole(tmp_path, checkpoint_every=1e6)
    (left,) = tmp_path.glob(".checkpoints-*")
    assert states(left)[0] == "001-done", "a stage that has ended is kept, however short it was"
    monkeypatch.undo()
    with lease(left.with_name(f"{left.name}.lease")), pytest.raises(SettingError, match="running already"):
        whole(tmp_path, resume=True)
    monkeypatch.setattr(LocalRidge, "fit", killed)
    monkeypatch.setattr(AutogradStep, "step_on_rows", killed)
    monkeypatch.setattr(SoftmaxStep, "step_on_rows", killed)
    whole(tmp_path, resume=True)
    assert not left.exists()
    with pytest.raises(Killed):
        whole(tmp_path, resume=True)
    assert "starts at the beginning" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "training_report", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            whole(tmp_path, checkpoint_every=1.0)
    assert "--resume would go on" in caplog.text
