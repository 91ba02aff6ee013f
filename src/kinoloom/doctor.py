"""Is this machine ready to make video, and what is to be done where it is not?"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from kinoloom.config import Settings, settings_file
from kinoloom.errors import KinoloomError

_ROOM = 1_000_000_000  # bytes free below which a disk is called tight


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `state` is ok, warning or failed; `hint` is what to do."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON-ready data."""
        return asdict(self)


def examine(settings: Settings) -> list[Check]:
    """Every check, in the order in which a newcomer would need them."""
    checks = [_python(), _settings_file(), _device(settings)]
    checks += [*_models(settings), *_backends(settings)]
    checks += [_guarded("codecs", _codecs), _guarded("store", lambda: _store(settings))]
    checks += [_guarded("assets", lambda: _assets(settings)), _cache(settings)]
    checks += [_guarded("workers", lambda: _workers(settings)), _server()]
    checks += [_place("data folder", settings.home), _place("output folder", settings.outputs)]
    return checks


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except KinoloomError as error:
        return _failed(name, error)


def _failed(name: str, error: KinoloomError) -> Check:
    hint = error.hints[0] if error.hints else ""
    return Check(name, "failed", f"{error.message} {error.cause}".strip(), hint)


def _python() -> Check:
    kinoloom = metadata.version("kinoloom")
    detail = f"kinoloom {kinoloom}, Python {platform.python_version()}, {platform.platform()}"
    return Check("versions", "ok", detail)


def _settings_file() -> Check:
    file = settings_file()
    return Check("settings", "ok", f"read from {file}" if file else "defaults; no kinoloom.yaml")


def _device(settings: Settings) -> Check:
    from kinoloom.backends.local.hardware import device_label, gpu_name, torch_version

    version = torch_version()
    if version is None:
        return Check("device", "failed", "torch is not installed", 'pip install "kinoloom[local]"')
    label = device_label(settings.device)
    if settings.device.startswith("cuda") and gpu_name() is None:
        detail = f"the settings ask for {settings.device}, but torch {version} has no GPU here"
        return Check("device", "failed", detail, "set KINOLOOM_DEVICE=auto")
    if shutil.which("nvidia-smi") and gpu_name() is None:
        return Check(
            "device",
            "warning",
            f"{label}; an NVIDIA driver is here, but torch {version} cannot use it",
            "install a CUDA build of torch",
        )
    return Check("device", "ok", f"{label}, torch {version}")


def _models(settings: Settings) -> list[Check]:
    from kinoloom.models import list_models

    try:
        rows, problems = list_models(settings, backend="local")
    except KinoloomError as error:  # the settings or the store tell where weights are
        return [_failed("models", error)]
    checks = []
    # What was never downloaded is nothing that is wrong with this machine.
    wanted = [row for row in rows if not any("models pull" in hint for hint in row["hints"])]
    for row in wanted:
        detail = "ready: " + ", ".join(row["tasks"]) if row["ready"] else "; ".join(row["reasons"])
        hint = row["hints"][0] if row["hints"] else ""
        state: Literal["ok", "failed"] = "ok" if row["ready"] else "failed"
        checks.append(Check(f"model {row['id']}", state, detail, hint))
    checks += [Check("model cards", "warning", p, "correct or remove the card") for p in problems]
    return checks


def _backends(settings: Settings) -> list[Check]:
    """A line for each backend beside this machine that is set up."""
    from kinoloom.readiness import list_backends

    checks = []
    for row in list_backends(settings):
        if row["name"] == "local" or not row["set_up"]:
            continue
        name = f"backend {row['name']}"
        # Models that are not on a server are no mistake; that it does not answer is one.
        if row["ready"]:
            models = f"{len(row['models'])} of {row['all_models']} models ready"
            lost = [s["url"] for s in row["servers"] if not s["reachable"]]
            detail = models + (f"; not reachable: {', '.join(lost)}" if lost else "")
            checks.append(Check(name, "warning" if lost else "ok", detail))
        else:
            hint = row["hints"][0] if row["hints"] else ""
            checks.append(Check(name, "warning", "; ".join(row["reasons"]), hint))
    return checks


def _codecs() -> Check:
    import av

    wanted = ("libx264", "libvpx-vp9", "aac", "libopus")
    missing = [name for name in wanted if name not in av.codecs_available]
    if missing:
        hint = "install PyAV from its wheel: pip install --force-reinstall --only-binary=av av"
        return Check("codecs", "failed", f"PyAV lacks {', '.join(missing)}", hint)
    return Check("codecs", "ok", f"PyAV {av.__version__} with H.264, VP9, AAC and Opus")


def _store(settings: Settings) -> Check:
    from kinoloom.store.statistics import REUSED, hit_rate
    from kinoloom.store.store import Store

    with Store.of(settings) as store:
        newest = store.clips.list(limit=1)
        totals = store.statistics.totals()
    last = f"newest clip {newest[0].created_at:%Y-%m-%d %H:%M} UTC" if newest else "no clips yet"
    rate = hit_rate(totals)
    known = f"; {rate:.0%} of the prompts' embeddings came from the cache" if rate else ""
    reused = totals.get(REUSED, 0)
    again = f"; {reused} clips were there already when asked for again" if reused else ""
    return Check("store", "ok", f"{settings.home}, {last}{known}{again}")


def _assets(settings: Settings) -> Check:
    """Keeps a few bytes where files go: a full or lost place shows itself only so."""
    from kinoloom.store.store import Store

    with Store.of(settings) as store:
        probe = f"kinoloom doctor {os.getpid()}".encode()
        store.assets.discard(store.assets.put_bytes(probe, "probe").digest)
    return Check("assets", "ok", f"files can be kept in {settings.assets or settings.home}")


def _cache(settings: Settings) -> Check:
    """Whether the cache of embeddings answers; without a server it is a folder."""
    if settings.cache_url is None:
        return Check("cache", "ok", "embeddings are kept in memory and on this disk")
    from kinoloom.store.cache.server import ServerCache, ServerLost

    try:
        cache = ServerCache(
            settings.cache_url.get_secret_value(), settings.cache_size, settings.cache_ttl
        )
        entries, used = cache.usage()
        cache.close()
    except (KinoloomError, ServerLost) as error:
        hint = "start the Redis server or correct cache_url; until then the disk is used"
        return Check("cache", "warning", str(error), hint)
    return Check("cache", "ok", f"Redis with {entries} embeddings, {used / 1e6:.1f} MB")


def _workers(settings: Settings) -> Check:
    """Who runs jobs, and whether some wait for nobody."""
    from kinoloom.jobs.dead import live_workers
    from kinoloom.store.store import Store

    with Store.of(settings) as store:
        live = [worker for worker in live_workers(store, settings) if worker.queues]
        counts = store.jobs.counts()
    served = {queue.name for worker in live for queue in worker.queues}
    waiting = {n: c["queued"] for n, c in counts.items() if c.get("queued") and n not in served}
    held = sum(states.get("held", 0) for states in counts.values())
    if waiting:
        names = ", ".join(f"{count} in {name}" for name, count in sorted(waiting.items()))
        hint = "kinoloom serve, or: kinoloom worker --queue " + sorted(waiting)[0]
        return Check("workers", "warning", f"jobs wait for a worker: {names}", hint)
    if held:
        hint = "kinoloom jobs list --state held, then: kinoloom jobs release ID"
        return Check("workers", "warning", f"{held} jobs are held or were interrupted", hint)
    if not live:
        return Check("workers", "ok", "none; a command renders in its own process")
    who = "; ".join(f"{w.id} serves {', '.join(q.name for q in w.queues)}" for w in live)
    return Check("workers", "ok", who)


def _server() -> Check:
    missing = [name for name in ("fastapi", "uvicorn", "httpx") if find_spec(name) is None]
    if missing:
        hint = 'pip install "kinoloom[server]"'
        return Check("server", "ok", f"not installed ({', '.join(missing)})", hint)
    return Check("server", "ok", "kinoloom serve can run")


def _place(name: str, folder: Path) -> Check:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    detail = f"{folder}: {free / 1e9:.1f} GB free"
    if free < _ROOM:
        return Check(name, "warning", detail, "free some space on this disk")
    return Check(name, "ok", detail)
