from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import kinoloom
from kinoloom.catalog.card import ModelCard, Schedule
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.source import Source

SPARK: dict[str, Any] = Catalog.load().get("spark").model_dump(mode="json", exclude_none=True)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = copy.deepcopy(SPARK)
    change(data)
    return data


def test_a_card_survives_json_and_yaml() -> None:
    card = ModelCard.model_validate(SPARK)
    assert ModelCard.model_validate_json(json.dumps(SPARK)) == card
    assert ModelCard.model_validate(yaml.safe_load(yaml.safe_dump(SPARK))) == card
    assert SPARK["pipelines"]["t2v"]["class"] == "LTXConditionPipeline"


@pytest.mark.parametrize(
    ("change", "where", "reason"),
    [
        (lambda d: d.update(colour="red"), "colour", "Extra inputs"),
        (lambda d: d["sizes"].update(most=5), "sizes.most", "Extra inputs"),
        (lambda d: d.pop("frames"), "frames", "required"),
        (lambda d: d.update(id="Spark 2"), "id", "pattern"),
        (lambda d: d.update(backend="the cloud"), "backend", "pattern"),
        (lambda d: d.pop("adapter"), "", "needs an adapter and steps"),
        (lambda d: d.pop("steps"), "", "needs an adapter and steps"),
        (lambda d: d.update(price="free"), "", "costs nothing"),
        (lambda d: d.update(backend="shop", remote={}), "", "source.service"),
        (lambda d: d["sizes"].update(default=[256, 170]), "sizes", "256x170"),
        (lambda d: d["sizes"].update(default=[160, 256]), "sizes", "not a native size"),
        (lambda d: d["sizes"].update(native=[[256, 512]]), "sizes", "256x512"),
        (lambda d: d["sizes"].update(minimum=300), "sizes", "minimum is above maximum"),
        (lambda d: d["sizes"].update(native=[]), "sizes.native", "at least 1"),
        (
            lambda d: d["sizes"].update(minimum=33, maximum=63),
            "sizes",
            "no multiple",
        ),
        (lambda d: d["frames"].update(default=24), "frames", "default 24 is not 8n+1"),
        (lambda d: d["frames"].update(minimum=33), "frames", "minimum <= default"),
        (lambda d: d["frames"].update(minimum=0), "frames.minimum", "greater than or equal to 1"),
        (lambda d: d["fps"].update(maximum=10), "fps", "minimum <= default <= maximum"),
        (lambda d: d["fps"].update(maximum=float("nan")), "fps.maximum", ""),
        (lambda d: d["steps"].update(preview=25), "steps", "preview <= standard"),
        (lambda d: d["guidance"].update(default=20), "guidance", "default <= maximum"),
        (lambda d: d["source"].update(repo="a/b"), "source", "package and repo"),
        (lambda d: d["source"].clear(), "source", "none"),
        (lambda d: d["source"].update(revision="main"), "source", "belongs to a repo"),
        (lambda d: d["source"].update(package="../x"), "source", "inside the kinoloom package"),
        (lambda d: d["pipelines"].update(dance={"class": "X"}), "pipelines.dance", ""),
        (lambda d: d["pipelines"].clear(), "pipelines", "at least 1"),
        (lambda d: d["pipelines"]["t2v"].update({"class": "a b"}), "pipelines.t2v.class", ""),
        (
            lambda d: d["pipelines"]["i2v"].update(inputs={}),
            "pipelines",
            "i2v takes the inputs: image (and may take keyframes, references); the card maps: none",
        ),
        (lambda d: d.pop("extend"), "", "belong together"),
        (lambda d: d["extend"].update(context_frames=8), "", "context_frames 8"),
        (lambda d: d["extend"].update(context_frames=49), "", "below its maximum"),
        (lambda d: d["schedule"].update(shift=3), "schedule", "shifted"),
        (lambda d: d["licence"].update(url="javascript:x"), "licence.url", ""),
    ],
)
def test_a_wrong_card_is_refused_with_the_field(
    change: Callable[[dict[str, Any]], Any], where: str, reason: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelCard.model_validate(changed(change))
    mistakes = caught.value.errors()
    places = {".".join(map(str, m["loc"])).removesuffix(".[key]") for m in mistakes}
    assert places == {where}
    assert any(reason in m["msg"] for m in mistakes)


def test_a_model_of_single_frames_cannot_move_a_picture() -> None:
    def stills(data: dict[str, Any]) -> None:
        data["frames"].update(maximum=1, default=1)
        data.pop("extend")
        data["pipelines"].pop("extend")

    with pytest.raises(ValidationError, match="single frames"):
        ModelCard.model_validate(changed(stills))


def test_rules_know_what_they_allow() -> None:
    card = ModelCard.model_validate(SPARK)
    assert [n for n in range(60) if card.frames.allows(n)] == [1, 9, 17, 25, 33, 41, 49]
    assert card.sizes.allows((256, 160))
    assert not card.sizes.allows((160, 256))
    free = card.sizes.model_copy(update={"only_native": False})
    assert free.allows((160, 256))
    assert not free.allows((160, 250))


def test_where_the_weights_are() -> None:
    root = Path(kinoloom.__path__[0])
    assert Source(package="catalog/weights/spark").folder == root / "catalog/weights/spark"
    assert Source(path=Path("/models/x")).folder == Path("/models/x")
    assert Source(repo="Lightricks/LTX-Video", revision="abc").folder is None


def test_a_linear_schedule_goes_evenly_from_one() -> None:
    assert Schedule(kind="linear").sigmas(4) == [1.0, 0.75, 0.5, 0.25]


def test_a_shifted_schedule_stays_longer_in_the_noise() -> None:
    linear, shifted = (Schedule(kind="shifted", shift=s).sigmas(10) for s in (1.0, 3.0))
    assert shifted[0] == 1.0
    assert shifted == sorted(shifted, reverse=True)
    assert all(s > t for s, t in zip(shifted[1:], linear[1:], strict=True))
    assert shifted[5] == pytest.approx(3 * 0.5 / 2)  # shift t / (1 + (shift - 1) t)
