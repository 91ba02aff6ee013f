from __future__ import annotations

from typing import Any

import pytest
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from kinoloom.backends.base import Take
from kinoloom.backends.local.scheduling import scheduler_for
from kinoloom.catalog.speed import Scheduler
from kinoloom.errors import ModelBroken


def take(**changes: Any) -> Take:
    values: dict[str, Any] = {
        "task": "t2v",
        "prompt": "a red ball",
        "negative": "",
        "width": 64,
        "height": 64,
        "frames": 4,
        "fps": 8.0,
        "steps": 2,
        "guidance": 4.0,
        "seed": 7,
        "device": "cpu x1",
    }
    return Take(**(values | changes))


def named(name: str, **settings: Any) -> Scheduler:
    return Scheduler.model_validate({"class": name, "settings": settings})


def test_the_weights_own_is_used_and_never_handed_out() -> None:
    own = PNDMScheduler(beta_end=0.012)
    found = scheduler_for(own, take())
    assert type(found) is PNDMScheduler
    assert found is not own  # it would keep what a stopped run left in it
    assert found.config.beta_end == 0.012


def test_the_takes_takes_its_place_and_keeps_what_it_does_not_name() -> None:
    own = PNDMScheduler(beta_end=0.012, beta_schedule="scaled_linear")
    found = scheduler_for(own, take(scheduler=named("DDIMScheduler", beta_schedule="linear")))
    assert isinstance(found, DDIMScheduler)
    assert (found.config.beta_schedule, found.config.beta_end) == ("linear", 0.012)
    euler = named("EulerDiscreteScheduler", timestep_spacing="trailing")
    found = scheduler_for(own, take(scheduler=euler))
    assert isinstance(found, EulerDiscreteScheduler)
    assert found.config.beta_schedule == "scaled_linear"


def test_noise_levels_are_shifted_under_either_name() -> None:
    flow = scheduler_for(FlowMatchEulerDiscreteScheduler(shift=1.0), take(shift=5.0))
    assert flow.config.shift == 5.0
    unipc = scheduler_for(
        UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0), take(shift=5.0)
    )
    assert unipc.config.flow_shift == 5.0
    both = take(shift=7.0, scheduler=named("FlowMatchEulerDiscreteScheduler"))
    assert scheduler_for(FlowMatchEulerDiscreteScheduler(), both).config.shift == 7.0


def test_a_scheduler_without_shift_stays_as_it_is() -> None:
    assert "shift" not in scheduler_for(DDIMScheduler(), take(shift=5.0)).config


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ModelBroken, match="NoSuchScheduler"):
        scheduler_for(DDIMScheduler(), take(scheduler=named("NoSuchScheduler")))
