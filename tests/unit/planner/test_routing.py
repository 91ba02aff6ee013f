from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.backends.base import Readiness
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    BudgetExceeded,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    ProviderRetired,
)
from kinoloom.planner.consent import check_consent
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.planner.resolve import plan
from kinoloom.request import VideoRequest
from unit.planner.shop import PRICE, elsewhere

SPARK = Catalog.load().get("spark")
TODAY = datetime.date(2026, 11, 21)
KEYS = {
    "backends": {
        "runway": {"api_key": "k"},
        "google": {"api_key": "k"},
        "replicate": {"api_key": "k"},
        "comfyui": {"servers": ["http://127.0.0.1:8188"]},
    }
}
BUDGET = {"budgets": {"day": "10"}}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNWAYML_API_SECRET", "GOOGLE_API_KEY", "GEMINI_API_KEY", "REPLICATE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def planned(
    *cards: ModelCard,
    settings: Mapping[str, Any] | None = None,
    broken: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
    **values: Any,
) -> Plan:
    """A plan with these cards; `broken` are the ids that are not ready, and why."""

    def ready(card: ModelCard) -> Readiness:
        why = (broken or {}).get(card.id)
        return Readiness(True) if why is None else Readiness(False, (why,), (f"mend {card.id}",))

    def took(backend: str, model: str) -> list[float]:
        return [seconds[model]] if seconds and model in seconds else []

    return plan(
        VideoRequest.checked(**({"prompt": "a red ball", "seed": 7} | values)),
        catalog=Catalog({c.id: c for c in cards}),
        settings=Settings(home=Path("home"), **(KEYS if settings is None else settings)),
        machine=Machine("cpu"),
        today=TODAY,
        readiness=ready,
        durations=took,
    )


def free(id_: str, backend: str, **changes: Any) -> ModelCard:
    return elsewhere(id_, **({"backend": backend, "price": "free"} | changes))


def test_a_model_elsewhere_is_planned_without_what_only_rendering_here_has() -> None:
    result = planned(elsewhere(), model="shop-one", steps=30, guidance=5, acceleration="fast")
    assert result.remote
    assert result.device == result.backend == "runway"
    assert (result.steps, result.guidance, result.memory, result.loras) == (0, 0, None, ())
    changed = {a.field: a.used for a in result.adjustments}
    assert changed == {"steps": None, "guidance": None, "acceleration": None}
    assert result.estimate.source == "unknown"
    assert Plan.model_validate(result.model_dump(mode="json")) == result


def test_its_cost_is_told_with_who_said_so() -> None:
    cost = planned(elsewhere(), model="shop-one", candidates=3).cost
    assert cost.amount == Decimal("1.50")
    assert str(cost) == "1.50 USD"
    assert (cost.source, cost.date) == (PRICE["source"], datetime.date(2026, 11, 1))
    assert cost.basis == "3 takes of 0.50 USD"
    assert planned(SPARK, settings={}).cost.free


def test_what_is_asked_of_length_and_size_lands_within_what_it_makes() -> None:
    result = planned(elsewhere(), model="shop-one", duration=60, size="3840x2160")
    assert (result.size, result.frames) == ((1280, 720), 240)
    assert {a.field for a in result.adjustments} == {"duration", "size"}


def test_its_time_is_what_it_took_before() -> None:
    result = planned(elsewhere(), model="shop-one", seconds={"shop-one": 40.0})
    assert (result.estimate.seconds, result.estimate.source) == (40.0, "measured")


def test_a_prompt_longer_than_it_takes_is_refused() -> None:
    card = elsewhere(remote={"prompt_limit": 10})
    # Characters outside of the basic plane count twice, as services count them.
    assert planned(card, model=card.id, prompt="\N{RED APPLE}" * 5).prompt
    with pytest.raises(InvalidRequest, match="1 mistake") as caught:
        planned(card, model=card.id, prompt="\N{RED APPLE}" * 6)
    assert "at most 10 characters" in caught.value.problems[0].allowed


@pytest.mark.parametrize(
    ("rule", "asked", "used", "told"),
    [
        ("never", None, False, False),
        ("never", True, False, True),
        ("always", None, True, False),
        ("always", False, True, True),
        ("optional", None, False, False),
        ("optional", True, True, False),
    ],
)
def test_sound_is_as_asked_where_there_is_a_choice(
    rule: str, asked: bool | None, used: bool, told: bool
) -> None:
    result = planned(elsewhere(remote={"audio": rule}), model="shop-one", audio=asked)
    assert result.audio is used
    assert bool(result.adjustments) is told


def test_sound_and_seed_make_another_clip() -> None:
    card = elsewhere(remote={"audio": "optional"})
    keys = {
        planned(card, model=card.id, audio=audio, seed=seed).key
        for audio in (True, False)
        for seed in (1, 2)
    }
    assert len(keys) == 4


# --- which one ----------------------------------------------------------------------------------


def test_auto_takes_the_best_that_is_ready_and_fits_the_budget() -> None:
    cards = (
        elsewhere("best", standing=90, price=PRICE | {"rates": [{"amount": "9", "per": "clip"}]}),
        elsewhere("good", standing=70),
        elsewhere("away", standing=80),
        elsewhere("old", standing=95, retirement="2026-11-21"),
        elsewhere("secret", standing=85, price=None),
        SPARK,
    )
    settings = KEYS | {"budgets": {"clip": "1"}}
    result = planned(*cards, settings=settings, broken={"away": "no key"}, backend="auto")
    assert result.model == "good"
    why = "\n".join(result.reasons)
    assert "model good: the best by quality of 2" in why
    assert "not spark (free): behind it" in why
    assert "not best: 9.00 USD is more than the budget of a clip, 1 USD" in why
    assert "not away: no key" in why
    assert "not old: retired on 2026-11-21" in why
    assert "not secret: its price is not known" in why


def test_auto_goes_by_what_the_user_prefers() -> None:
    cards = (
        elsewhere("fine", standing=90),
        elsewhere("quick", standing=50),
        elsewhere("cheap", standing=40, price="free"),
    )
    seconds = {"fine": 90.0, "quick": 10.0}

    def model(prefer: str) -> str:
        settings = KEYS | BUDGET | {"prefer": prefer}
        return planned(*cards, settings=settings, seconds=seconds, model="auto").model

    assert [model(p) for p in ("quality", "speed", "cost")] == ["fine", "quick", "cheap"]


def test_auto_spends_nothing_without_a_budget() -> None:
    result = planned(elsewhere(), SPARK, backend="auto")
    assert result.model == "spark"
    assert any("no budget is set" in reason for reason in result.reasons)
    assert planned(elsewhere(), SPARK, backend="auto", max_cost="2").model == "shop-one"


def test_auto_may_be_the_default() -> None:
    settings = KEYS | BUDGET | {"default_model": "auto"}
    assert planned(elsewhere(), SPARK, settings=settings).model == "shop-one"
    assert planned(elsewhere(), SPARK, settings=KEYS | BUDGET).model == "spark"


def test_a_backend_without_a_model_takes_its_best() -> None:
    cards = (elsewhere("a", standing=10), elsewhere("b", standing=20), SPARK)
    # Who names it has said yes to what it costs.
    assert planned(*cards, backend="runway").model == "b"
    assert planned(*cards, backend="local").model == "spark"
    with pytest.raises(InvalidRequest) as caught:
        planned(*cards, backend="runwy")
    assert caught.value.problems[0].nearest == "runway"


def test_when_none_is_ready_each_says_why() -> None:
    with pytest.raises(ModelNotFound) as caught:
        planned(elsewhere(), backend="runway", broken={"shop-one": "there is no key"})
    assert "shop-one: there is no key" in caught.value.cause
    assert caught.value.hints[0] == "mend shop-one"


def test_a_backend_that_nothing_is_set_for_is_not_even_asked() -> None:
    result = planned(elsewhere(), SPARK, settings=BUDGET, backend="auto")
    assert result.model == "spark"
    assert any("nothing is set for the backend runway" in r for r in result.reasons)


def test_the_same_weights_are_found_on_another_backend() -> None:
    cards = (SPARK, free("comfyui-spark", "comfyui", same_as="spark"))
    assert planned(*cards, model="spark", backend="comfyui").model == "comfyui-spark"
    assert planned(*cards, model="comfyui-spark", backend="local").model == "spark"
    with pytest.raises(InvalidRequest) as caught:
        planned(*cards, elsewhere(), model="spark", backend="runway")
    assert "shop-one" in caught.value.problems[0].allowed


def test_one_that_is_not_ready_is_planned_with_a_warning() -> None:
    result = planned(elsewhere(), model="shop-one", broken={"shop-one": "there is no key"})
    assert any("there is no key; mend shop-one" in w for w in result.warnings)


def test_a_retired_one_names_its_successor() -> None:
    card = elsewhere(retirement="2026-09-30", successor="shop-two")
    with pytest.raises(ProviderRetired, match="retired on 2026-09-30") as caught:
        planned(card, model=card.id)
    assert "shop-two" in caught.value.hints[0]
    soon = elsewhere(retirement="2026-12-24", successor="shop-two")
    assert "shop-two" in planned(soon, model=soon.id).warnings[0]


# --- what is tried when it fails ------------------------------------------------------------------


def models(result: Plan) -> list[str]:
    return [a.model for a in result.alternatives]


def test_the_chain_goes_on_behind_the_one_that_was_chosen() -> None:
    cards = (
        free("here-too", "comfyui", same_as="wan"),
        free("there-too", "google"),
        elsewhere("paid", backend="replicate"),
    )
    wan = free("wan", "openai")
    assert models(planned(*cards, wan, model="wan")) == ["there-too"]
    assert models(planned(*cards, wan, model="wan", settings=KEYS | BUDGET)) == [
        "there-too",
        "paid",
    ]
    # Not in the chain: all of it, the same weights first.
    other = free("other", "comfyui", standing=99)
    result = planned(*cards, other, elsewhere(same_as="wan"), SPARK, model="shop-one")
    assert models(result) == ["here-too", "there-too"]


def test_no_consent_no_fallback() -> None:
    cards = (free("wan", "comfyui"), elsewhere("paid", backend="google"))
    assert models(planned(*cards, model="wan")) == []
    assert models(planned(*cards, model="wan", max_cost="0.40")) == []
    assert models(planned(*cards, model="wan", max_cost="0.50")) == ["paid"]
    assert models(planned(*cards, model="wan", max_cost="1", fallback=False)) == []
    off = KEYS | BUDGET | {"fallback": {"enabled": False}}
    assert models(planned(*cards, model="wan", settings=off)) == []
    assert models(planned(*cards, model="wan", settings=off, fallback=True)) == ["paid"]


def test_an_unknown_price_needs_its_own_yes() -> None:
    cards = (free("wan", "comfyui"), elsewhere("dark", backend="google", price=None))
    assert models(planned(*cards, model="wan", settings=KEYS | BUDGET)) == []
    yes = planned(*cards, model="wan", settings=KEYS | BUDGET, unknown_price=True)
    assert models(yes) == ["dark"]
    assert yes.alternatives[0].cost.amount is None


def test_one_that_is_not_ready_is_no_alternative() -> None:
    cards = (
        free("wan", "comfyui"),
        free("first", "google", standing=90),
        free("second", "google", standing=80),
    )
    assert models(planned(*cards, model="wan", broken={"first": "no key"})) == ["second"]


# --- what may be spent --------------------------------------------------------------------------


def test_what_costs_too_much_is_refused_before_it_is_a_job() -> None:
    def consent(card: ModelCard, settings: Mapping[str, Any] = KEYS, **values: Any) -> None:
        given = Settings(home=Path("home"), **settings)
        check_consent(planned(card, settings=settings, model=card.id, **values), given)

    consent(elsewhere())
    consent(elsewhere(), max_cost="0.50")
    with pytest.raises(BudgetExceeded, match=r"max_cost allows 0\.49 USD"):
        consent(elsewhere(), max_cost="0.49")
    with pytest.raises(BudgetExceeded, match=r"budgets\.clip allows 0\.99 USD"):
        consent(elsewhere(), KEYS | {"budgets": {"clip": "0.99"}}, candidates=2)
    with pytest.raises(BudgetExceeded, match="budgets are in EUR"):
        consent(elsewhere(), KEYS | {"budgets": {"day": "9", "currency": "EUR"}})
    with pytest.raises(InvalidRequest, match="not known"):
        consent(elsewhere(price=None))
    consent(elsewhere(price=None), unknown_price=True)
    consent(free("wan", "comfyui"), max_cost="0")


# --- every card that is shipped -------------------------------------------------------------------

CARDS = [card for card in Catalog.load() if "t2v" in card.pipelines]


@given(
    card=st.sampled_from(CARDS),
    size=st.tuples(st.integers(16, 8192), st.integers(16, 8192)) | st.none(),
    length=st.fixed_dictionaries({"frames": st.integers(1, 5000)})
    | st.fixed_dictionaries({"duration": st.floats(0.01, 600)})
    | st.just({}),
    fps=st.floats(1, 120) | st.none(),
    steps=st.integers(0, 200) | st.none(),
    guidance=st.floats(0, 50) | st.none(),
    audio=st.booleans() | st.none(),
)
def test_a_plan_always_lands_within_what_the_model_can_do(
    card: ModelCard, length: Mapping[str, Any], **wishes: Any
) -> None:
    asked = {name: value for name, value in wishes.items() if value is not None}
    try:
        result = planned(card, model=card.id, **asked, **length)
    except ProviderRetired:
        assert card.retirement is not None
        assert card.retirement <= TODAY
        return
    except KinoloomError as error:
        assert error.kind == "insufficient_vram", error  # noqa: PT017 - nothing else may happen
        return
    assert card.sizes.allows(result.size)
    assert card.frames.allows(result.frames)
    assert card.fps.minimum <= result.fps <= card.fps.maximum
    assert card.steps.minimum <= result.steps <= card.steps.maximum
    assert card.guidance.minimum <= result.guidance <= card.guidance.maximum
    assert result.cost.amount is None or result.cost.amount >= 0
    # Whatever differs from the wish is told.
    told = {a.field for a in result.adjustments}
    for name, used in {"size": result.size, "fps": result.fps, "frames": result.frames}.items():
        if name in asked | length and (asked | length)[name] != used:
            assert name in told
