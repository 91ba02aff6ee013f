from __future__ import annotations

import pytest

from kinoloom.backends.comfyui.graphs import BUILDERS
from kinoloom.backends.comfyui.object_info import ROLES
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog

CATALOG = Catalog.load()
CARDS = [card for card in CATALOG if card.backend == "comfyui"]
SAME = [card for card in CARDS if card.same_as is not None]


def test_every_family_is_there() -> None:
    assert {card.family for card in CARDS} == {"animatediff", "svd", "wan", "hunyuanvideo-15"}
    assert {task for card in CARDS for task in card.tasks} == {"t2v", "i2v", "flf2v"}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_card_says_all_that_the_backend_reads(card: ModelCard) -> None:
    assert card.id.startswith("comfyui-")
    assert card.price == "free"
    assert card.standing > 0
    assert card.remote is not None
    assert card.remote.files.keys() <= ROLES.keys()
    # What loads a file is among the nodes that must be there.
    assert {ROLES[role].node for role in card.remote.files} <= set(card.remote.nodes)
    assert {p.class_name for p in card.pipelines.values()} <= BUILDERS.keys()
    assert not card.presets  # their LoRAs would have to lie here
    assert len(card.remote.nodes) == len(set(card.remote.nodes))


@pytest.mark.parametrize("card", SAME, ids=lambda card: card.id)
def test_a_card_agrees_with_the_local_one_of_the_same_weights(card: ModelCard) -> None:
    assert card.same_as is not None
    local = CATALOG.get(card.same_as)
    assert local.backend == "local"
    assert (card.family, card.licence.id) == (
        local.family,
        local.licence.id.replace(" and IP-Adapter", ""),
    )
    assert (card.frames, card.fps, card.shift) == (local.frames, local.fps, local.shift)
    assert (card.steps, card.guidance) == (local.steps, local.guidance)
    assert (card.negative, card.experts) == (local.negative, local.experts)
    sizes, theirs = card.sizes, local.sizes
    assert sizes.default == theirs.default
    assert (sizes.multiple_of, sizes.maximum) == (theirs.multiple_of, theirs.maximum)
    assert not sizes.only_native
    assert all(sizes.allows(size) for size in theirs.native)


def test_only_lasting_differences_have_no_local_card() -> None:
    ours = {card.id for card in CARDS if card.same_as is None}
    assert ours == {"comfyui-wan-2.2-t2v-a14b-4-steps", "comfyui-wan-2.2-i2v-a14b-4-steps"}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_the_second_experts_guidance_is_the_local_one(card: ModelCard) -> None:
    for task, pipeline in card.pipelines.items():
        if not pipeline.class_name.startswith("wan22_a14b"):
            continue
        assert 0.5 < float(str(pipeline.arguments["boundary"])) < 1
        if card.same_as is not None and task in CATALOG.get(card.same_as).pipelines:
            local = CATALOG.get(card.same_as).pipelines[task]
            name = "guidance_scale_2"
            assert pipeline.arguments[name] == local.arguments[name]
