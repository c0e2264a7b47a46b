"""What a search moves, and how far."""

import tomllib
from dataclasses import fields

import pytest

from recsys_embed import ModelConfig, TrainConfig
from recsys_embed.config.fields import settings
from recsys_embed.config.recipes import RECIPES, Size, resolve_settings
from recsys_embed.presets import SETTINGS
from recsys_embed.tuning.space import FILE, read_space

TOWERS = [(*pair, "id") for pair in RECIPES] + [(loss, "dot", "both") for loss in ("softmax", "sampled-softmax")]


@pytest.mark.parametrize(("loss", "scorer", "tower"), TOWERS)
def test_a_range_holds_the_start_and_moves_what_there_is(loss, scorer, tower):
    given = ModelConfig(scorer=scorer, user_tower=tower), TrainConfig(loss=loss)
    start = settings(*resolve_settings(*given, Size(900, 1700, 80_000)))
    space = read_space({**start, "described": False})
    assert {"dim", "epochs", "lr", "user_decay", "item_decay"} <= set(space)
    whole = loss in ("softmax", "sampled-softmax") and scorer == "dot"
    assert (whole, tower == "both") == ("batch_users" in space, "history_dropout" in space)
    assert ("batch_size" in space) != whole and ("negatives" in space) == (loss != "mse" != loss != "softmax")
    for name, range_ in space.items():
        assert range_.low < range_.high and range_.clip(start[name]) == start[name]
        assert isinstance(start[name], int) == range_.integer
    # Before it is stretched to a start outside of it, the space holds no settings that contradict each other.
    assert space["lr"].high * max(space[n].high for n in ("user_decay", "item_decay")) < 1


def test_the_space_names_settings_and_conditions_that_there_are():
    movable = tomllib.loads(FILE.read_text())
    known = {f.name for kind in (ModelConfig, TrainConfig) for f in fields(kind)}
    assert set(movable) <= set(SETTINGS)
    for entries in movable.values():
        assert all(set(e) <= {"when", "low", "high", "times", "log", "choices"} for e in entries)
        assert {name for e in entries for name in e.get("when", {})} <= known | {"described"}
        # The last entry may hold always; after one that does none could.
        assert all("when" in e for e in entries[:-1])


def test_descriptions_and_cosines_have_settings_of_their_own():
    start = settings(*resolve_settings(ModelConfig(cosine=True), TrainConfig(), Size(900, 1700, 80_000)))
    assert {"content_decay", "content_lr_scale", "temperature"} <= set(read_space({**start, "described": True}))
