from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoloom.planner.complexity import complexity

RICH = (
    "Cinematic masterpiece, highly detailed: two samurai fighting in heavy rain on a crowded"
    " market street at night, neon reflections, sparks flying, the camera follows in a handheld"
    " tracking shot, then a slow zoom, volumetric light, smoke swirling, people running away,"
    " a horse jumping over burning carts, dramatic shadows, lens flare, 8k, film grain"
)


def factor(prompt: str, name: str) -> tuple[float, tuple[str, ...]]:
    (found,) = [f for f in complexity(prompt).factors if f.name == name]
    return found.value, found.found


def test_nothing_asked_is_nothing_hard() -> None:
    result = complexity("")
    assert result.score == 0
    assert result.level == "simple"
    assert all(f.share == 0 for f in result.factors)


def test_the_seven_factors_are_all_shown_and_their_weights_make_one() -> None:
    names = ["motion", "scene", "camera", "lighting", "quality", "length", "subjects"]
    factors = complexity("anything").factors
    assert sorted(f.name for f in factors) == sorted(names)
    assert sum(f.weight for f in factors) == pytest.approx(1)


def test_the_classes_in_order() -> None:
    prompts = {
        "a red ball": "simple",
        "a red ball rolling to the right on green grass": "simple",
        "a man walking through a forest at sunset, slow zoom": "moderate",
        "cinematic drone shot of two dancers spinning on a beach at sunset, waves splashing, neon"
        " lights glowing": "complex",
        RICH: "very_complex",
    }
    assert {p: complexity(p).level for p in prompts} == prompts


@pytest.mark.parametrize(
    ("name", "prompt", "found"),
    [
        ("motion", "a boy Jumping and rolling", ("jumping", "rolling")),
        ("scene", "a castle in the mountains", ("castle", "mountains")),
        ("camera", "a bird's eye view, tracking shot", ("bird's eye view", "tracking shot")),
        ("camera", "a close-up", ("close-up",)),
        ("lighting", "golden hour, soft   light", ("golden hour", "soft   light")),
        ("quality", "photorealistic, 4K", ("photorealistic", "4k")),
        ("subjects", "two people", ("two", "people")),
        ("subjects", "a dog and a cat", ("dog", "cat")),
        ("subjects", "a dog", ()),
    ],
)
def test_each_factor_names_the_words_it_found(
    name: str, prompt: str, found: tuple[str, ...]
) -> None:
    value, words = factor(prompt, name)
    assert words == found
    assert (value > 0) is bool(found)


def test_a_word_counts_once_and_only_as_a_whole() -> None:
    assert factor("jump jump jump", "motion")[0] == factor("jump", "motion")[0]
    assert factor("a runway for planets", "motion")[1] == ()
    assert factor("a carpet", "subjects")[1] == ()


def test_a_factor_ends_at_one() -> None:
    assert factor("jump run walk fly spin twist dance", "motion")[0] == 1
    assert factor("word " * 300, "length")[0] == 1


def test_longer_is_harder() -> None:
    assert factor("one", "length")[0] < factor("one word more", "length")[0]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(RICH.split()), max_size=60).map(" ".join) | st.text(max_size=200))
def test_the_score_is_the_sum_of_the_shares(prompt: str) -> None:
    result = complexity(prompt)
    assert 0 <= result.score <= 1
    assert result.score == pytest.approx(sum(f.share for f in result.factors), abs=1e-3)
    for f in result.factors:
        assert f.share == pytest.approx(f.weight * f.value, abs=1e-4)
