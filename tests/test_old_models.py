"""Folders that version 0.1 saved load, and answer as they did; `expected.json` beside them is what 0.1 answered."""

import json
from pathlib import Path

import pytest

from recsys_embed import Recommender, Rules
from recsys_embed.config.renamed import RENAMED

FOLDERS = Path(__file__).parent / "fixtures" / "models-0.1"
EXPECTED = json.loads((FOLDERS / "expected.json").read_text())


def close(found, expected):
    """Compare plain values; scores may differ by the last bits of another processor's products."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    else:
        assert found == expected


@pytest.mark.parametrize("name", list(EXPECTED))
def test_answers_are_those_of_the_version_that_saved_it(name):
    model, expected = Recommender.load(FOLDERS / name), EXPECTED[name]
    user, items = model.users.ids([1])[0], model.items.ids([0, 4]).to_list()
    found = {
        "recommend": model.recommend(user, k=5).to_dicts(),
        "likes": model.recommend_for(items, k=5).to_dicts(),
        "similar": model.similar(items[0], 3).to_dicts(),
        "explain": model.explain(user, items[1]).summary(),
        "predict": model.predict([user], [items[1]]).tolist(),
        "card": model.card(),
    }
    if "search" in expected:
        found["search"] = model.search("round red", 3).to_dicts()
    if "rules" in expected:
        rules = Rules(where="'red' in kind", boost="title == 'x': 1")
        found["rules"] = model.recommend_for(items, k=5, rules=rules).to_dicts()
    close(found, expected)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_saved_again_every_array_is_the_same(name, tmp_path):
    Recommender.load(FOLDERS / name).save(tmp_path / name)
    old, new = (json.loads((folder / name / "manifest.json").read_text()) for folder in (FOLDERS, tmp_path))
    assert set(old["files"]) == set(new["files"]) and old["format"] == new["format"]
    arrays = [file for file in old["files"] if file.endswith(".safetensors")]
    assert arrays and all(old["files"][file] == new["files"][file] for file in arrays)


def test_settings_have_the_names_of_this_version():
    model = Recommender.load(FOLDERS / "mlp")
    settings = json.loads((FOLDERS / "mlp" / "model.json").read_text())["settings"]
    renamed = {name for name in settings if name in RENAMED}
    assert {"hidden", "clip", "content_pace", "moments", "weight"} <= renamed
    assert model.metadata["settings"] == {RENAMED.get(name, name): value for name, value in settings.items()}
    assert model.warm_start_configs()[0].mlp_layers == "6,3"
