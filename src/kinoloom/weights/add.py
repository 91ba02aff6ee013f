"""How does a user's own checkpoint become a model with a card?

What lies there says its architecture; the rules of how it is used are copied from the card that is
most like it, and the new card says so. The card is a file of the user's, to be corrected by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.section import REPO
from kinoloom.config import Settings
from kinoloom.errors import (
    InvalidRequest,
    KinoloomError,
    ModelBroken,
    ModelNotFound,
    OutputFailed,
    Problem,
)
from kinoloom.weights import architectures, layout
from kinoloom.weights.files import MAX_JSON_BYTES, PICKLES, parse_json, pickle, read_header
from kinoloom.weights.hub import Hub, Remote
from kinoloom.weights.layout import Need
from kinoloom.weights.places import Located, Places, main_needs

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
# What another model's card says of itself alone.
_ITS_OWN = {
    "source",
    "timing",
    "vocabulary",
    "retirement",
    "unverified",
    "notes",
    "suggests",
    "memory",
}


@dataclass(frozen=True)
class Added:
    """A new card: its id, its file, the card whose rules it has, and what to do next."""

    model: str
    card: Path
    like: str
    tasks: tuple[str, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class _Look:
    """What was found at a place: the card's `source`, the class, and bytes by component."""

    source: dict[str, Any]
    pipeline: str
    sizes: Mapping[str, int]


def add(target: str, settings: Settings, catalog: Catalog, *, id_: str | None = None) -> Added:
    """Write a card for a diffusers folder, a safetensors file or a Hugging Face repository.

    Raises InvalidRequest for a place or an id that cannot be used, ModelBroken for what is no
    whole model or a pickle, ModelNotFound when no card is like it.
    """
    place = Path(target).expanduser() if target and "\0" not in target else Path("\N{EMPTY SET}")
    is_repo = not place.exists() and re.fullmatch(REPO, target) is not None
    wanted = target if is_repo else place.absolute().name
    name, file = card_file(wanted, settings, catalog, id_=id_)
    places = Places.of(settings)
    if place.suffix in PICKLES:
        raise pickle(place)
    if place.is_dir():
        found = _folder(place.absolute())
        template = _most_like(found, catalog)
    elif place.is_file():
        found, template = _single(place.absolute(), places, catalog)
    elif is_repo:
        found = _repository(target, name, places)
        template = _most_like(found, catalog)
    else:
        raise InvalidRequest(
            [Problem("model", target, "a folder, a .safetensors file, or OWNER/NAME of the Hub")]
        )
    write_card(file, _card(name, found, template))
    hints = [f'kinoloom generate "..." --model {name}', f"its rules are in {file}"]
    if is_repo:
        hints.insert(0, f"kinoloom models pull {name}")
    return Added(name, file, template.id, tuple(template.tasks), tuple(hints))


def card_file(
    text: str, settings: Settings, catalog: Catalog, *, id_: str | None = None
) -> tuple[str, Path]:
    """The id of a new card, `id_` or one made of `text`, and the file that it belongs in.

    Raises InvalidRequest for an id that cannot be used or is taken.
    """
    name = _name(text, id_)
    file = settings.models / f"{name}.yaml"
    _free(name, file, catalog)
    return name, file


def _name(text: str, wanted: str | None) -> str:
    """The new card's id: the wanted one, or one made of the place's name."""
    if wanted is not None:
        if not _ID.fullmatch(wanted):
            allowed = "small letters, digits, dots, _ and -, beginning with a letter or digit"
            raise InvalidRequest([Problem("--id", wanted, allowed)])
        return wanted
    stem = PurePosixPath(text).name.removesuffix(".safetensors").lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._")[:100] or "model"


def _free(name: str, file: Path, catalog: Catalog) -> None:
    if name in catalog or file.exists():
        where = "a model has it" if name in catalog else f"{file} is there"
        raise InvalidRequest(
            [Problem("id", name, f"one that is free ({where})", f"{name}-2")],
            hints=[f"Give it another: --id {name}-2"],
        )


def _folder(folder: Path) -> _Look:
    """A folder of the user's in diffusers' layout, every file looked at."""
    if not (folder / layout.INDEX).is_file():
        other = "holds a component of one" if (folder / "config.json").is_file() else "holds none"
        pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
        raise ModelBroken(
            f"{folder} is no model in diffusers' layout.",
            cause=f"it has no {layout.INDEX} and {other}"
            + (f"; {pickles[0]} is a pickle, which is never opened" if pickles else ""),
            hints=["Give the folder with model_index.json, or a .safetensors file."],
        )
    needs = main_needs(Located(folder=folder), ())
    bad = [n for n in needs if n.state != "found"]
    if bad:
        raise ModelBroken(
            f"{folder} is not complete.",
            cause="\n".join(f"{n.path}: {n.reason or n.state}" for n in bad[:10]),
            hints=["Download or copy the model anew, then add it again."],
        )
    return _Look({"path": str(folder)}, layout.pipeline_class(folder), _by_component(needs))


def _single(file: Path, places: Places, catalog: Catalog) -> tuple[_Look, ModelCard]:
    """A single safetensors file, and the card of a model of the same build that is on this disk."""
    if file.suffix != ".safetensors":
        raise ModelBroken(
            f"{file} is no model.",
            cause=f"{file.suffix or 'it'} is no kind of file that holds one",
            hints=["Give a .safetensors file, a folder, or OWNER/NAME of the Hub."],
        )
    header = read_header(file)
    architecture = architectures.of_file(header)
    if architecture is None or architectures.is_lora(header):
        lora = architectures.is_lora(header)
        raise ModelBroken(
            f"{file} is {'a LoRA' if lora else 'of no architecture that Kinoloom knows'}.",
            cause=f"its {len(header.shapes)} tensors begin with {min(header.shapes, default='-')}",
            hints=["Use it with a model: --lora FILE"]
            if lora
            else ["Give the model as a folder in diffusers' layout."],
        )
    alike = [c for c in catalog.list() if _runs(c, architecture.classes)]
    for card in alike:
        try:
            folder = places.main(card).folder
        except KinoloomError:
            continue
        if folder is not None and architectures.fits(architecture, header, folder):
            source = {"file": str(file), "config": str(folder)}
            return _Look(source, layout.pipeline_class(folder), {}), card
    names = [c.id for c in sorted(alike, key=lambda c: _distance(c, {"": file.stat().st_size}))]
    raise ModelNotFound(
        f"{file.name} is a {architecture.name} model; what it is built like is not on this disk.",
        cause="a single file does not say its configuration, a model of the same build does",
        hints=[f"kinoloom models pull {n}" for n in names[:3]]
        or ["Give the model as a folder in diffusers' layout."],
    )


def _repository(repo: str, name: str, places: Places) -> _Look:
    """A repository: as it is on this disk, else as the Hub describes it."""
    folder = places.pipeline_folder(repo)
    if folder is not None:
        return replace(_folder(folder), source={"repo": repo})
    hub = Hub(name)
    remote = hub.look(repo)
    if layout.INDEX not in remote.files:
        raise ModelBroken(
            f"{repo} is no model in diffusers' layout.",
            cause=f"it has no {layout.INDEX}",
            hints=["Download its .safetensors file and add that."],
        )
    file = Path(repo, layout.INDEX)
    data = parse_json(file, hub.read(remote, remote.files[layout.INDEX], MAX_JSON_BYTES))
    needs = _remote_needs(remote, layout.components(file, data))
    missing = [n for n in needs if n.state != "found"]
    if missing:
        raise ModelBroken(
            f"{repo} has no weights that Kinoloom opens.",
            cause=f"it has no {missing[0].path}; other formats are not opened",
            hints=["Look for a repository with safetensors in diffusers' layout."],
        )
    return _Look({"repo": repo}, layout.class_in(file, data), _by_component(needs))


def _remote_needs(remote: Remote, wanted: list[layout.Component]) -> list[Need]:
    names = layout.select(remote.files, "", wanted)
    found = [Need(n, "found", remote.files[n].size) for n in names]
    weights = [n for n in names if n.endswith(".safetensors")]
    for component in wanted:
        prefix = component.name + "/"
        if component.weighs and not any(n.startswith(prefix) for n in weights):
            found.append(Need(prefix + "*.safetensors", "missing"))
    return found


def _by_component(needs: list[Need]) -> dict[str, int]:
    """Bytes of weights by component."""
    sizes: dict[str, int] = {}
    for need in needs:
        component, _, rest = need.path.partition("/")
        if rest.endswith(".safetensors") and need.size:
            sizes[component] = sizes.get(component, 0) + need.size
    return sizes


def _most_like(found: _Look, catalog: Catalog) -> ModelCard:
    """The card of the same pipeline class (or build) whose components are nearest in size."""
    known = architectures.of_class(found.pipeline)
    cards = [c for c in catalog.list() if _runs(c, {found.pipeline})]
    if not cards and known is not None:
        cards = [c for c in catalog.list() if _runs(c, known.classes)]
    if not cards:
        raise ModelNotFound(
            f"No model card tells how a {found.pipeline} is used.",
            cause="it is of an architecture that Kinoloom does not know yet",
            hints=["Write a card for it by hand: docs/architecture.md says what stands in one."],
        )
    return min(cards, key=lambda c: (_distance(c, found.sizes), c.id))


def _runs(card: ModelCard, classes: set[str] | frozenset[str]) -> bool:
    return any(p.class_name in classes for p in card.pipelines.values())


def _distance(card: ModelCard, sizes: Mapping[str, int]) -> float:
    """How unlike the sizes of two models' components are, in factors of two."""
    if card.memory is None:
        return 1000.0
    known = card.memory.components
    if "" in sizes:  # a single file: only the sum can be compared
        return abs(math.log2(max(1, sizes[""]) / card.memory.total))
    shared = known.keys() & sizes.keys()
    apart = sum(abs(math.log2(max(1, sizes[name]) / known[name])) for name in shared)
    return apart + 8.0 * len(known.keys() ^ sizes.keys())


def _card(name: str, found: _Look, template: ModelCard) -> dict[str, Any]:
    rules = template.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_ITS_OWN)
    source = dict(found.source)
    supplied = template.source.model_dump(mode="json", exclude_unset=True).get("parts", {})
    parts = {n: p for n, p in supplied.items() if n not in found.sizes}
    if parts:
        source["parts"] = parts
    card = rules | {
        "id": name,
        "title": name,
        "summary": f"Your own model, built like {template.title}.",
        "source": source,
        "unverified": [
            f"the licence, which is that of {template.id}: look at the model's own page",
            f"sizes, frames, steps and guidance, which are those of {template.id}",
        ],
    }
    if found.sizes:
        card["memory"] = {"components": dict(found.sizes)}
    elif template.memory is not None:
        card["memory"] = template.memory.model_dump(mode="json", exclude_unset=True)
    ModelCard.model_validate(card)  # what is written can be read
    return card


def write_card(file: Path, card: dict[str, Any]) -> None:
    """Write a card as a user's file, which must not be there. Raises OutputFailed."""
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=96)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputFailed(
            f"The card cannot be written to {file}.",
            cause=error.strerror or str(error),
            hints=["Set KINOLOOM_MODELS to a folder that you may write to."],
        ) from error
