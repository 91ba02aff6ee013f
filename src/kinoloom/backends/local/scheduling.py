"""Which scheduler does a take use?"""

from __future__ import annotations

from typing import Any

import diffusers

from kinoloom.backends.base import Take
from kinoloom.errors import ModelBroken


def scheduler_for(own: Any, take: Take) -> Any:
    """A fresh scheduler for a take: like the weights' `own`, or the one that the take names.

    What the named one does not set is as in `own`. Noise levels are shifted where the take says so.
    Raises ModelBroken when this diffusers has none of that name.
    """
    cls: Any = type(own)
    settings: dict[str, Any] = {}
    if take.scheduler is not None:
        cls = getattr(diffusers, take.scheduler.class_name, None)
        settings = dict(take.scheduler.settings)
        if cls is None:
            raise ModelBroken(
                f"diffusers {diffusers.__version__} has no {take.scheduler.class_name}.",
                hints=["correct the scheduler in the model's card, or upgrade diffusers"],
            )
    return shifted(cls.from_config(own.config, **settings), take.shift)


def shifted(scheduler: Any, shift: float | None) -> Any:
    """The scheduler with its noise levels shifted, if it can be and `shift` is one."""
    name = "flow_shift" if "flow_shift" in scheduler.config else "shift"
    if shift is None or name not in scheduler.config:
        return scheduler
    return type(scheduler).from_config(scheduler.config, **{name: shift})
