"""How do several processes render one clip together, each on a GPU of its own?

``torchrun --nproc-per-node 2 -m kinoloom generate ...`` starts the same program several times. The
first process plans, writes, records and prints; the others follow it: they are told what to render
and compute their share of every attention (diffusers' context parallelism, after Ulysses). All draw
the same noise, and each has the whole clip at the end.

Two things connect them. The process group carries what all do at the same time. In the launcher's
store one leaves word without waiting for the others: that a render begins, that a follower failed,
that the first process is done. The last is also how followers end, wherever they are by then.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import diffusers
import torch
import torch.distributed as dist
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch._C._distributed_c10d import Store, TCPStore

from kinoloom.backends.base import Inputs, Progress, Rendered, Take, WhatFits
from kinoloom.backends.local.backend import LocalBackend, Report
from kinoloom.backends.local.memory_errors import is_out_of_memory
from kinoloom.backends.local.speed import DENOISERS, denoisers
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings, load_settings
from kinoloom.errors import (
    ErrorKind,
    InsufficientMemory,
    InvalidRequest,
    KinoloomError,
    Problem,
)
from kinoloom.weights.files import read_json
from kinoloom.weights.places import Located, locate

_ALONE = "run one job a GPU instead, without a launcher: KINOLOOM_DEVICE=cuda:0, cuda:1, ..."
_RENDER, _FAILED, _DONE = "kinoloom/render", "kinoloom/failed", "kinoloom/done"
_PATIENCE = timedelta(days=30)  # a follower waits as long as the first process has other work
_GRACE = 60.0  # seconds in which the first process tells of a follower's failure
_CAUSE_LENGTH = 300

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of the processes this is (the first is 0), which on its machine, and of how many."""

    rank: int
    local_rank: int
    size: int


def world() -> World | None:
    """What a launcher says of this process; None for one that was started by itself."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    if not all(value.isdigit() for value in values) or "MASTER_ADDR" not in os.environ:
        return None
    found = World(*map(int, values))
    return found if found.size > 1 else None


@cache
def join() -> Group | None:
    """The processes that were started together with this one; None when there are no others.

    Waits for all of them. Only the first process returns from it: the others follow that one and
    end when it does.
    """
    here = world()
    if here is None:
        return None
    backend = "gloo"
    if torch.cuda.device_count() > here.local_rank:  # without a GPU for it, the render says so
        torch.cuda.set_device(here.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="diffusers.hooks.context_parallel"
    )
    dist.init_process_group(backend, timeout=_PATIENCE)
    group = Group(here, _store())
    if here.rank:
        _follow(group)
    atexit.register(group.end)
    return group


class Group:
    """The processes that render together, as one of them sees the others."""

    def __init__(self, here: World, store: Store) -> None:
        self.here = here
        self._store = store
        self._renders = 0
        self._ended = False
        self._stderr = os.dup(2)

    def begin(self, take: Take, card: ModelCard, inputs: Inputs) -> None:
        """Tell the followers what all render now. Raises KinoloomError when they have ended."""
        if self._ended:
            raise KinoloomError(
                "The processes that rendered together ended with a render that was stopped.",
                hints=["start them anew with the launcher"],
            )
        self._store.set(f"{_RENDER}/{self._renders}", "")
        self._renders += 1
        dist.broadcast_object_list([(take, card, inputs)], src=0, device=torch.device("cpu"))

    def told(self) -> tuple[Take, ModelCard, Inputs]:
        """What the first process renders next; waits for it."""
        self._store.wait([f"{_RENDER}/{self._renders}"], _PATIENCE)
        self._renders += 1
        told: tuple[Take, ModelCard, Inputs] = _from_first(None)
        return told

    def here_take(self, take: Take) -> Take:
        """The take on this process's own GPU."""
        if not take.device.startswith("cuda"):
            return take
        name = take.device.partition(" ")[2]
        return replace(take, device=f"cuda:{self.here.local_rank} {name}".strip())

    def words(self, encode: Callable[[], tuple[dict[str, Any], T]], device: Any) -> Any:
        """What `encode` gives in the first process, in all of them: the others load no encoder."""
        found = encode() if self.here.rank == 0 else ({}, None)
        tensors, known = _from_first((_moved(found[0], "cpu"), found[1]))
        return _moved(tensors, device), known

    def check(self, take: Take, card: ModelCard, located: Located) -> None:
        """Raise InvalidRequest for what cannot be divided among the processes; loads nothing."""
        problems = []
        together = f"in {self.here.size} processes"
        if not card.acceleration.parallel:
            allowed = f"one whose card says that it can be divided {together}"
            problems.append(Problem("model", card.id, allowed))
        if take.placement != "resident":
            allowed = f"resident {together}: each holds all weights"
            problems.append(Problem("placement", take.placement, allowed))
        if take.speed.cache is not None:
            # Each would judge by its own share what to leave out, and wait for the others forever.
            allowed = f"none {together}: ask for acceleration lossless"
            problems.append(Problem("step cache", take.speed.cache.kind, allowed))
        active, _ = _AttentionBackendRegistry.get_active_backend()
        attention = AttentionBackendName(take.speed.attention or active)
        if not _AttentionBackendRegistry._is_context_parallel_available(attention):
            allowed = f"one that can be divided {together}: ask for acceleration lossless"
            problems.append(Problem("attention", attention.value, allowed))
        problems += self._uneven(heads_of(located))
        self._refuse(problems)

    def split(self, pipe: Any, device: torch.device) -> None:
        """Divide the pipeline's denoisers among the processes, unless they are already.

        Raises InvalidRequest where a card promised what its weights turn out not to allow.
        """
        modules: list[Any] = [module for _, module in denoisers(pipe)]
        problems = []
        for module in modules:
            if getattr(module, "_cp_plan", None) is None:
                allowed = f"one that diffusers {diffusers.__version__} can divide"
                problems.append(Problem("model", type(module).__name__, allowed))
            else:
                problems += self._uneven([module.config.num_attention_heads])
        self._refuse(problems)
        for module in modules:
            if getattr(module, "_parallel_config", None) is None:
                self._divide(module, device)

    def failure(self, error: BaseException) -> KinoloomError | None:
        """What to say in place of an error of the first process in a render; None: that error."""
        if not isinstance(error, RuntimeError | ValueError | AssertionError):
            return None
        if self._store.check([_FAILED]):
            said = json.loads(self._store.get(_FAILED))
            memory = said["kind"] == ErrorKind.INSUFFICIENT_VRAM
            kind = InsufficientMemory if memory else KinoloomError
            who = f"Process {said['rank'] + 1} of {self.here.size}"
            return kind(f"{who}: {said['message']}", cause=said["cause"], hints=said["hints"])
        return KinoloomError(
            f"The render in {self.here.size} processes failed.",
            cause=f"{type(error).__name__}: {error}"[:_CAUSE_LENGTH],
            hints=[_ALONE, "or try another size or length"],
        )

    def fail(self, error: BaseException) -> NoReturn:
        """End a follower that failed, and with it the render."""
        said = _said(error) | {"rank": self.here.rank}
        self._store.set(_FAILED, json.dumps(said))
        # Closes the connections, so that the first process does not wait any longer.
        with suppress(RuntimeError, ValueError):
            dist.destroy_process_group()
        time.sleep(_GRACE)  # the first process tells of it, and ends this one by that
        text = f"error ({said['kind']}): {said['message']}\n{said['cause']}\n"
        os.write(self._stderr, text.encode())
        os._exit(1)

    def end(self) -> None:
        """End the followers."""
        self._ended = True
        with suppress(RuntimeError, ValueError):  # the launcher has ended them then
            self._store.set(_DONE, "")

    def _uneven(self, heads: Iterable[int]) -> list[Problem]:
        """What is wrong with attention heads that cannot be dealt out evenly."""
        allowed = "a divisor of the {} attention heads"
        size = self.here.size
        return [Problem("processes", size, allowed.format(n)) for n in {*heads} if n % size]

    def _refuse(self, problems: Sequence[Problem]) -> None:
        if problems:
            message = f"This cannot be rendered in {self.here.size} processes together."
            raise InvalidRequest(problems, message=message, hints=[_ALONE])

    def _divide(self, module: Any, device: torch.device) -> None:
        context = ContextParallelConfig(ulysses_degree=self.here.size)
        config = ParallelConfig(context_parallel_config=context)
        shape, names = context.mesh_shape, context.mesh_dim_names
        mesh = dist.device_mesh.init_device_mesh(device.type, shape, mesh_dim_names=names)
        config.setup(self.here.rank, self.here.size, device, mesh=mesh)

        def resolved(_: Any) -> ParallelConfig:
            module._parallel_config = config
            return config

        # diffusers' own takes the machine's best device, whatever this render is on, and divides
        # by the number of GPUs, which is 0 on a CPU.
        module._resolve_parallel_config = resolved
        try:
            module.enable_parallelism(config=context)
        finally:
            del module._resolve_parallel_config


class FirstBackend(LocalBackend):
    """Renders as `LocalBackend` does, together with the processes that follow this one."""

    def __init__(
        self, settings: Settings, group: Group, *, what_fits: WhatFits | None = None
    ) -> None:
        super().__init__(settings, group, what_fits=what_fits)
        self._others = group

    def render(self, take: Take, card: ModelCard, inputs: Inputs, report: Report) -> Rendered:
        """Render `take` in all processes; see `Backend.render`.

        What cannot be divided is refused before the others hear of it. Whatever stops the render
        later ends the others too: nothing brings them back into step.
        """
        self._others.check(take, card, locate(card, self._settings))
        raised: BaseException | None = None

        def reporting(progress: Progress) -> None:
            nonlocal raised
            try:
                report(progress)
            except BaseException as error:
                raised = error
                raise

        group = self._others
        try:
            group.begin(take, card, inputs)
            return super().render(group.here_take(take), card, inputs, reporting)
        except BaseException as error:
            found = group.failure(error) if error is not raised else None
            group.end()
            if found is None:
                raise
            raise found from error


def heads_of(located: Located) -> list[int]:
    """The attention heads of the denoisers, from their configurations; of those that have one."""
    found = []
    for name in DENOISERS:
        place = located.parts.get(name) or (located.folder or located.config or Path()) / name
        file = place / "config.json"
        if file.is_file():
            heads = read_json(file).get("num_attention_heads")
            found += [heads] if isinstance(heads, int) else []
    return found


def _follow(group: Group) -> NoReturn:
    """Render what the first process renders, until it ends."""
    if threading.current_thread() is threading.main_thread():
        # A terminal interrupts all at once, but it is the first process that says so.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for printed in (1, 2):  # also what the libraries print: the first process says the same
        os.dup2(nowhere, printed)
    threading.Thread(target=_end_with_first, daemon=True).start()
    try:
        backend = LocalBackend(load_settings(), group)
        while True:
            take, card, inputs = group.told()
            backend.render(group.here_take(take), card, inputs, lambda _: None)
    except BaseException as error:
        group.fail(error)


def _end_with_first() -> NoReturn:
    """End this process at once when the first one is done: it has nothing to leave in order.

    It may be waiting for its share of an attention, from which nothing else would wake it.
    """
    try:
        _store().wait([_DONE], _PATIENCE)
    except (RuntimeError, ValueError):  # the store went with the launcher
        os._exit(1)
    os._exit(0)


def _store() -> Store:
    """A connection of its own to the launcher's store: one that waits lets nobody else speak."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False)


def _from_first(value: Any) -> Any:
    """What the first process gives, in all."""
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _moved(values: dict[str, Any], device: Any) -> dict[str, Any]:
    """The tensors among `values` on `device`, the rest as it is."""
    return {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in values.items()}


def _said(error: BaseException) -> dict[str, Any]:
    """An error as data: kind, message, cause and hints."""
    if isinstance(error, KinoloomError):
        return error.as_dict()
    memory = is_out_of_memory(error)
    return {
        "kind": str(ErrorKind.INSUFFICIENT_VRAM if memory else ErrorKind.UNKNOWN),
        "message": "The render failed.",
        "cause": f"{type(error).__name__}: {error}"[:_CAUSE_LENGTH],
        "hints": [_ALONE],
    }
