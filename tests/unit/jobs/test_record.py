from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinoloom.backends.base import Rendered
from kinoloom.jobs.record import RenderFacts, clip_record, measurement_of
from kinoloom.planner.plan import Plan
from kinoloom.store.cache.bytes import HITS, MISSES

MakePlan = Callable[..., Plan]

RENDERED = Rendered(
    frames=np.zeros((1, 2, 2, 3), np.uint8),
    seconds={"load": 4.0, "encode": 0.5, "denoise": 6.0, "step": 3.0, "decode": 1.0},
    device="cpu x1",
    dtype="float32",
    versions={"torch": "2.13.0"},
    peak_bytes=1000,
    placement="model_offload",
    tiling=True,
    notes=("Memory ran out once.",),
    embeddings="hit",
)


def test_facts_come_back_from_their_json() -> None:
    facts = RenderFacts.of(RENDERED)
    assert RenderFacts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts


@pytest.mark.parametrize(
    ("found", "counted"), [("hit", {HITS: 1}), ("miss", {MISSES: 1}), (None, {})]
)
def test_a_render_counts_whether_its_embeddings_were_cached(
    found: object, counted: dict[str, int]
) -> None:
    facts = RenderFacts.of(replace(RENDERED, embeddings=found))  # type: ignore[arg-type]
    assert facts.counters == counted


def test_what_a_render_teaches_leaves_loading_out(make_plan: MakePlan) -> None:
    plan = make_plan(steps=2)
    known = measurement_of(plan, RenderFacts.of(RENDERED))
    assert (known.seconds_per_step, known.load_seconds, known.overhead_seconds) == (3.0, 4.0, 1.5)
    assert (known.placement, known.tiling, known.peak_bytes) == ("model_offload", True, 1000)


@pytest.mark.parametrize("asset", [None, "sha256:" + "0" * 64])
def test_only_a_clip_outside_the_store_has_a_place(
    make_plan: MakePlan, asset: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan()
    record = clip_record(
        "an-id",
        Path("clip.mp4"),
        plan,
        RenderFacts.of(RENDERED),
        {"overall": 0.5, "notes": ["It is dark."]},
        total=12.34567,
        inputs={},
        poster=None,
        digest=None,
        asset=asset,
        owner="a-key",
        job_id="a-job",
    )
    assert record.path == (tmp_path / "clip.mp4" if asset is None else Path("clip.mp4"))
    assert (record.owner, record.job_id, record.plan_key) == ("a-key", "a-job", plan.key)
    assert record.timings["total"] == 12.3457
    assert tuple(record.warnings)[-2:] == ("Memory ran out once.", "It is dark.")
    assert record.versions["placement"] == "model_offload"
