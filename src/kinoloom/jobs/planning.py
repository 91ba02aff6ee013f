"""What is there to plan with and to render on: cards, this machine, its measurements, backends?

Whoever plans or renders, the Python API, a worker or its child process, asks here, so that all see
the same. Importing this module loads neither torch nor a codec.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

from kinoloom.backends import registry
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError
from kinoloom.request import VideoRequest

if TYPE_CHECKING:
    from kinoloom.backends.base import Backend, Placement, Readiness, RemoteBackend, Renderer
    from kinoloom.backends.local.parallel import Group
    from kinoloom.catalog.card import ModelCard
    from kinoloom.catalog.loader import Catalog
    from kinoloom.planner.estimate import Measurement
    from kinoloom.planner.inputs import Inputs
    from kinoloom.planner.outlook import Machine
    from kinoloom.planner.plan import Plan
    from kinoloom.request import Level
    from kinoloom.store.store import Store


def backend_for(name: str, settings: Settings) -> Backend:
    """The backend of that name; the same object each time, so that models stay loaded.

    Raises NotFound for a name that there is not, MissingPackage for one that cannot be loaded.
    """
    return _local(settings) if name == "local" else registry.backend(name, settings)


def renderer_for(name: str, settings: Settings) -> Renderer:
    """The backend of that name, which renders in this process. Raises KinoloomError."""
    found = backend_for(name, settings)
    if found.remote:
        raise KinoloomError(f"The backend {name} does not render in this process.")
    return cast("Renderer", found)


def remote_for(name: str, settings: Settings) -> RemoteBackend:
    """The backend of that name, which works elsewhere. Raises KinoloomError."""
    found = backend_for(name, settings)
    if not found.remote:
        raise KinoloomError(f"The backend {name} takes no orders.")
    return cast("RemoteBackend", found)


@lru_cache(maxsize=1)
def _local(settings: Settings) -> Backend:
    from kinoloom.backends.local.backend import LocalBackend
    from kinoloom.planner.memory import what_fits

    if (group := join_others()) is not None:
        from kinoloom.backends.local.parallel import FirstBackend

        return FirstBackend(settings, group, what_fits=what_fits)
    return LocalBackend(settings, what_fits=what_fits)


def join_others() -> Group | None:
    """The processes that a launcher such as torchrun started with this one, to render together.

    None when there are no others. Only the first of them returns from it; see `parallel.join`.
    """
    if "WORLD_SIZE" not in os.environ:
        return None
    from kinoloom.backends.local.parallel import join

    return join()


def plan_request(
    request: VideoRequest,
    settings: Settings,
    store: Store,
    *,
    catalog: Catalog | None = None,
    machine: Machine | None = None,
    inputs: Inputs | None = None,
) -> Plan:
    """The plan of a checked request on this machine, or on another `machine`.

    Its media are read here unless their `inputs` are given. Raises KinoloomError.
    """
    from kinoloom.planner import resolve

    return resolve.plan(
        request,
        catalog=catalog or load_catalog(settings),
        settings=settings,
        machine=machine or machine_of(settings),
        inputs=inputs,
        # Asked for more than once, and nothing is rendered meanwhile.
        measurements=cache(lambda model, device: measurements_of(store, model, device)),
        readiness=lambda card: readiness_of(card, settings),
    )


def readiness_of(card: ModelCard, settings: Settings) -> Readiness:
    """Whether a model can run now; of a backend that cannot be loaded, why."""
    from kinoloom.backends.base import Readiness

    try:
        return backend_for(card.backend, settings).readiness(card)
    except KinoloomError as error:
        return Readiness(False, (error.message,), error.hints)
    except Exception as error:  # whatever another package's code does; it must hide no other model
        why = f"{card.backend} failed with {type(error).__name__}: {error}"
        return Readiness(False, (why,), (f"report it to who makes {card.backend}",))


def machine_of(settings: Settings) -> Machine:
    """The device that the settings choose, and the memory that is free for a render now."""
    from kinoloom.backends.local import hardware
    from kinoloom.planner.outlook import Machine

    device = hardware.device_label(settings.device)
    if (group := join_others()) is not None:
        device += f" in {group.here.size} processes"  # which take another time
    # What this process holds is given back before something else is loaded.
    ram = hardware.memory("cpu", ours=True)
    free = ram if device.startswith("cpu") else hardware.memory(device, ours=True)
    return Machine(
        device,
        free=free[0] if free is not None else None,
        ram=ram[0] if ram is not None else None,
        dtype_bytes=_dtype_bytes(settings.dtype, device),
    )


def _dtype_bytes(dtype: str, device: str) -> int:
    """Bytes of one number; by itself a GPU computes in half precision, a processor in full."""
    wide = device.startswith("cpu") if dtype == "auto" else dtype == "float32"
    return 4 if wide else 2


def measurements_of(store: Store, model: str, device: str) -> Sequence[Measurement]:
    """What renders of a model took on a device of this machine, in the planner's form."""
    from kinoloom.planner.estimate import Measurement

    return [
        Measurement(
            model=m.model,
            device=m.device,
            width=m.width,
            height=m.height,
            frames=m.frames,
            # Only whether guidance took a second pass matters for the time.
            guidance=2.0 if m.guided else 1.0,
            seconds_per_step=m.seconds_per_step,
            overhead=m.overhead_seconds,
            placement=cast("Placement", m.placement),
            tiling=m.tiling,
            acceleration=cast("Level", m.acceleration),
            peak=m.peak_bytes,
        )
        for m in store.measurements.recent(device, model)
    ]


def load_catalog(settings: Settings) -> Catalog:
    """Kinoloom's own model cards, the user's, and those that backends bring."""
    from kinoloom.catalog.loader import Catalog

    catalog = Catalog.load(settings.models)
    return catalog.with_cards(registry.cards(catalog, settings))
