"""How does a model get onto this disk?

Only the files that its pipelines need, each checked, into Hugging Face's cache, where other
programs find them too. What is on this disk already is not downloaded again, wherever it lies. The
first download pins the commit it took; a newer one is offered and taken only when asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Part
from kinoloom.config import Settings
from kinoloom.errors import DownloadFailed, KinoloomError, LicenceNotAccepted, ModelBroken
from kinoloom.store.models import Models
from kinoloom.weights import cache, layout
from kinoloom.weights.files import MAX_JSON_BYTES, PICKLES, parse_json
from kinoloom.weights.hub import Hub, Remote, RemoteFile, no_room
from kinoloom.weights.places import Places, main_needs, part_needs


@dataclass(frozen=True)
class Wish:
    """Something that a card takes from a repository: all of its pipeline, a component, or a file.

    `name` is the component's, empty for the main source.
    """

    name: str
    repo: str
    revision: str | None = None
    subfolder: str = ""
    file: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where a download is: the file, and the bytes of all files that are here, of how many."""

    file: str
    done: int
    total: int


@dataclass(frozen=True)
class Pulled:
    """What a pull did: bytes that arrived, the commits in use, and those that are newer."""

    model: str
    size: int = 0
    files: int = 0
    pinned: dict[str, str] = field(default_factory=dict)
    newer: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    remote: Remote
    files: list[RemoteFile]


def wishes(card: ModelCard) -> list[Wish]:
    """Everything that a card takes from repositories, the LoRAs of its presets included."""
    found = []
    if card.source.repo is not None:
        found.append(Wish("", card.source.repo, card.source.revision))
    parts = list(card.source.parts.items())
    parts += [(f"{name} LoRA", lora.source) for name, p in card.presets.items() for lora in p.loras]
    for name, part in parts:
        if part.repo is not None:
            found.append(Wish(name, part.repo, part.revision, part.subfolder, part.file))
    return list(dict.fromkeys(found))


def restricted(card: ModelCard) -> bool:
    """Whether the licence does not hold everywhere, and so has to be accepted."""
    return card.licence.territory != "worldwide"


def pull(
    card: ModelCard,
    settings: Settings,
    models: Models,
    *,
    accept: bool = False,
    update: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Pulled:
    """Download what the card needs and this disk lacks; with `update`, at the newest revision.

    Raises LicenceNotAccepted for a licence with a territory unless `accept` is given now or was
    before, and KinoloomError for everything that goes wrong on the way. Interrupted, it goes on
    where it was the next time.
    """
    _agree(card, models, accept)
    wanted = wishes(card)
    if not wanted:
        return Pulled(card.id)
    places, pins = Places.of(settings), models.pins()
    here = [] if update else [w for w in wanted if _is_here(card, w, places, models, pins)]
    hub = Hub(card.id)
    remotes: dict[tuple[str, str | None], Remote] = {}
    jobs = []
    for wish in wanted:
        if wish not in here:
            at = (wish.repo, wish.revision or (None if update else models.pins().get(wish.repo)))
            remotes[at] = remotes.get(at) or hub.look(*at)
            jobs.append(_Job(remotes[at], _files(card, wish, hub, remotes[at])))
    # A first download pins before it begins, so that going on with it takes the same commit; an
    # update pins when it is done, so that the old files are used until then.
    commits = {repo: remote.commit for (repo, revision), remote in remotes.items() if not revision}
    if not update:
        _pin(models, commits)
    size = _download(hub, jobs, on_progress)
    if update:
        _pin(models, commits)
    if jobs:
        Places.of(settings).locate(card)  # refuses what the repository itself lacks
    pinned = {w.repo: pin for w in wanted if (pin := models.pins().get(w.repo)) is not None}
    return Pulled(card.id, size, sum(len(j.files) for j in jobs), pinned, newer(card, pinned, hub))


def _pin(models: Models, commits: dict[str, str]) -> None:
    for repo, commit in commits.items():
        models.pin(repo, commit)


def newer(
    card: ModelCard, pinned: dict[str, str], hub: Hub, *, timeout: float = 20.0
) -> dict[str, str]:
    """The newest commit of each pinned repository that has a newer one; empty without a network."""
    found: dict[str, str] = {}
    for wish in wishes(card):
        pin = pinned.get(wish.repo)
        if pin is None or wish.revision is not None or wish.repo in found:
            continue
        try:
            commit = hub.look(wish.repo, timeout=timeout).commit
        except KinoloomError:
            return found  # an offer, nothing that anything depends on
        if commit != pin:
            found[wish.repo] = commit
    return found


def _agree(card: ModelCard, models: Models, accept: bool) -> None:
    licence = card.licence
    if accept:
        models.accept(card.id, licence.id)
    elif restricted(card) and models.accepted(card.id, licence.id) is None:
        raise LicenceNotAccepted(
            f"The licence of {card.id} does not hold everywhere: {licence.territory}.",
            cause=f"{licence.id}, {licence.url}",
            hints=[
                "Read it, and where it holds for you run:"
                f" kinoloom models pull {card.id} --accept-licence",
            ],
        )


def _is_here(
    card: ModelCard, wish: Wish, places: Places, models: Models, pins: dict[str, str]
) -> bool:
    """Whether all of it is on this disk; if it is in the cache, its commit is pinned from now."""
    try:
        if wish.name == "":
            located = places.main(card)
            found, place = main_needs(located, card.source.parts), located.main
        else:
            place = places.part(card, wish.name, _part(wish))
            found = part_needs(wish.name, place)
    except KinoloomError:
        return False
    if any(n.state != "found" for n in found):
        return False
    commit = cache.commit_of(place)
    if commit is not None and wish.revision is None and wish.repo not in pins:
        models.pin(wish.repo, commit)
    return True


def _part(wish: Wish) -> Part:
    return Part(repo=wish.repo, revision=wish.revision, subfolder=wish.subfolder, file=wish.file)


def _files(card: ModelCard, wish: Wish, hub: Hub, remote: Remote) -> list[RemoteFile]:
    """The files of a wish. Raises ModelBroken where the repository lacks one, or its weights."""
    weigh: list[str] = []
    if wish.file is not None:
        names = [str(PurePosixPath(wish.subfolder, wish.file))]
    else:
        listed = _components(card, wish, hub, remote)
        names = layout.select(remote.files, wish.subfolder, listed)
        prefix = f"{wish.subfolder}/" if wish.subfolder else ""
        if listed is not None:
            weigh = [f"{prefix}{c.name}/" for c in listed if c.weighs]
        elif f"{prefix}config.json" in names:
            weigh = [prefix]
    missing = [n for n in names if n not in remote.files]
    weights = [n for n in names if n.endswith(".safetensors")]
    missing += [f"{f}*.safetensors" for f in weigh if not any(n.startswith(f) for n in weights)]
    if missing or not names or PurePosixPath(names[0]).suffix in PICKLES:
        raise _unsuitable(wish, remote, missing)
    return [remote.files[n] for n in names]


def _components(
    card: ModelCard, wish: Wish, hub: Hub, remote: Remote
) -> list[layout.Component] | None:
    """What the pipeline in the repository is made of, without what comes from elsewhere.

    None where it holds a component instead.
    """
    index = remote.files.get(str(PurePosixPath(wish.subfolder, layout.INDEX)))
    if index is not None:
        raw = hub.read(remote, index, MAX_JSON_BYTES)
        file = Path(wish.repo, index.name)
        supplied = card.source.parts if wish.name == "" else {}
        listed = layout.components(file, parse_json(file, raw))
        return [c for c in listed if c.name not in supplied]
    if wish.name == "":
        raise _unsuitable(wish, remote, [layout.INDEX])
    return None


def _unsuitable(wish: Wish, remote: Remote, missing: Sequence[str]) -> ModelBroken:
    pickles = sorted(n for n in remote.files if PurePosixPath(n).suffix in PICKLES)
    cause = f"it has no {missing[0]}" if missing else f"it has nothing in {wish.subfolder!r}"
    if pickles:
        cause += f"; {pickles[0]} is a pickle, which is never opened"
    return ModelBroken(
        f"{wish.repo} does not have what the card takes from it.",
        cause=cause,
        hints=["Correct the repository in the model's card."],
    )


def _download(hub: Hub, jobs: Sequence[_Job], on_progress: Callable[[Progress], None]) -> int:
    """Every file that is not here yet; gives the bytes that arrived."""
    pending = [(j.remote, f) for j in jobs for f in j.files]
    # Configurations first: what is interrupted then shows as weights that are missing.
    pending.sort(key=lambda pair: pair[1].name.endswith(".safetensors"))
    here = sum(_bytes_here(remote, file) for remote, file in pending)
    total = sum(file.size for _, file in pending)
    root = cache.cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
    except OSError as error:
        raise DownloadFailed(
            f"{root} cannot be written.",
            cause=error.strerror or str(error),
            hints=["Set HF_HOME to a folder that you may write to."],
        ) from error
    if total - here > free:
        full = no_room(root)
        full.cause = f"{(total - here) / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        raise full
    done = 0
    for remote, file in pending:

        def report(size: int, name: str = file.name, before: int = done) -> None:
            on_progress(Progress(name, before + size, total))

        report(0)
        hub.download(remote, file, report)
        done += file.size
    return total - here


def _bytes_here(remote: Remote, file: RemoteFile) -> int:
    """How much of a file is in the cache: all of it, what was interrupted, or nothing."""
    base = cache.repo_folder(remote.repo)
    tag = file.sha256 or file.git_hash or "none"
    for place in (
        base / "snapshots" / remote.commit / file.name,
        base / "blobs" / tag,
        base / "blobs" / f"{tag}.incomplete",
    ):
        if place.is_file():
            return min(place.stat().st_size, file.size)
    return 0
