"""Which scheduler does a take use, where the card or a preset names another than the weights do?"""

from __future__ import annotations

from typing import Any

import diffusers

from kinoloom.catalog.speed import Scheduler
from kinoloom.errors import ModelBroken


def use_scheduler(pipe: Any, wanted: Scheduler | None) -> None:
    """Give the pipeline, which has its own scheduler, the `wanted` one; None leaves it as it is.

    What `wanted` does not set is as in the scheduler that it replaces. Raises ModelBroken when
    this diffusers has none of that name.
    """
    if wanted is None:
        return
    cls = getattr(diffusers, wanted.class_name, None)
    if cls is None:
        raise ModelBroken(
            f"diffusers {diffusers.__version__} has no {wanted.class_name}.",
            hints=["correct the scheduler in the model's card, or upgrade diffusers"],
        )
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **wanted.settings)
