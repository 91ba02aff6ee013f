"""What happens when memory runs out during a render?

Everything is let go of, the next lower placement is tried once, and after that the render fails
with one clear error. The next render begins as if nothing had been.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from kinoloom.backends.base import Phase, Placement, Rendered, Take
from kinoloom.errors import InsufficientMemory

_TEXTS = (
    "out of memory",  # CUDA, HIP and MPS: "CUDA out of memory", "MPS backend out of memory"
    "can't allocate memory",  # torch's allocator for the CPU on Linux
    "not enough memory",  # the same on Windows
    "invalid buffer size",  # MPS, for a tensor beyond what Metal takes
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudaerrormemoryallocation",
)
"""What a RuntimeError says (in small letters) when it is about memory."""

_LOWER: dict[Placement, Placement] = {
    "resident": "model_offload",
    "fp8": "model_offload",
    "model_offload": "group_offload",
    "group_offload": "sequential",
}
"""The next placement that needs less, on a GPU with memory of its own. From `resident` it is not
`fp8`, which would change the frames."""

_NAMES: dict[Placement, str] = {
    "resident": "all weights on the device",
    "fp8": "the transformer's weights in 8 bits",
    "model_offload": "one component at a time on the device",
    "group_offload": "a few layers at a time on the device",
    "sequential": "one layer at a time on the device",
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | InsufficientMemory):
            return True
        # torch.OutOfMemoryError is a RuntimeError too, and says "out of memory".
        if isinstance(seen, RuntimeError) and any(text in str(seen).lower() for text in _TEXTS):
            return True
        seen = seen.__cause__
    return False


def next_placement(take: Take, phase: Phase | None = None, *, tiles: bool = True) -> Take | None:
    """The take one level down; None where there is none.

    `phase` is where memory ran out, if that is known, and `tiles` whether the VAE can work in
    tiles: where decoding failed, that is tried first.
    """
    if phase == "decode" and tiles and not take.tiling:
        return replace(take, tiling=True)
    lower = _LOWER.get(take.placement)
    if not take.device.startswith("cuda") or lower is None:
        return None
    tiling = take.tiling or (tiles and phase in (None, "decode"))
    return replace(take, placement=lower, tiling=tiling)


def run_with_retry(
    take: Take,
    render: Callable[[Take], Rendered],
    free: Callable[[], None],
    *,
    phase: Callable[[], Phase | None] = lambda: None,
    tiles: bool = True,
    retry: bool = True,
    instead: Callable[[Take], Sequence[str]] = lambda _: (),
) -> Rendered:
    """What `render` makes of `take`, or once more of the take one level down if memory runs out.

    `free` lets go of everything that is loaded; it is called before the second attempt and after a
    failure. `phase` says where the last attempt was. Without `retry` there is only one attempt.
    `instead` says what to ask for in place of the last take, once everything is let go of.

    Raises InsufficientMemory when neither attempt fits, with those hints, and every other error of
    `render` as it is.
    """
    cause = _attempt(take, render)
    if isinstance(cause, Rendered):
        return cause
    lower = next_placement(take, phase(), tiles=tiles) if retry else None
    free()
    if lower is None:
        raise _no_room((take,), cause, instead(take))
    second = _attempt(lower, render)
    if isinstance(second, Rendered):
        note = f"Memory ran out with {_how(take)}; it was rendered again with {_how(lower)}."
        return replace(second, placement=lower.placement, notes=(*second.notes, note))
    free()
    raise _no_room((take, lower), second, instead(lower))


def _attempt(take: Take, render: Callable[[Take], Rendered]) -> Rendered | str:
    """What was rendered, or what was said when memory ran out.

    Only the text leaves: the error's traceback would keep the tensors alive that fill the memory.
    """
    try:
        return render(take)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        _clear(error)
    return said


def _clear(error: BaseException) -> None:
    """Forget the local variables of the frames that an error and its causes passed through."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def _how(take: Take) -> str:
    return _NAMES[take.placement] + (", decoded in tiles" if take.tiling else "")


def _no_room(tried: Sequence[Take], cause: str, instead: Sequence[str]) -> InsufficientMemory:
    take = tried[0]
    attempts = " and then with ".join(_how(t) for t in tried)
    hints = list(instead) or ["ask for fewer frames or a smaller size"]
    return InsufficientMemory(
        f"{take.device} has too little memory for {take.frames} frames of"
        f" {take.width}x{take.height}: it was tried with {attempts}.",
        cause=cause,
        hints=[*hints, "close other programs that use it"],
    )
