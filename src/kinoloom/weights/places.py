"""Where does every piece of a card's weights lie on this disk?

In this order: the card's own path; Hugging Face's cache, the pinned revision first; the folders
of the setting `model_roots`; the ComfyUI tree of the setting `comfyui`. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Part
from kinoloom.config import Settings
from kinoloom.errors import ModelBroken, ModelNotFound, StoreBroken, nearest_names
from kinoloom.weights import cache, comfy, layout
from kinoloom.weights.files import PICKLES, pickle
from kinoloom.weights.layout import Need

# What the folder of a component, or of a pipeline, begins with.
_MARKERS = (
    "config.json",
    layout.INDEX,
    "preprocessor_config.json",
    "tokenizer_config.json",
    "scheduler_config.json",
)


@dataclass(frozen=True)
class Located:
    """Where a card's weights are: a folder in diffusers' layout, or a single file and its config.

    Exactly one of `folder` and `file`. `parts` are the components that come from elsewhere, each
    with its folder or file. `revision` is the commit of a folder in Hugging Face's cache.
    """

    folder: Path | None = None
    file: Path | None = None
    config: Path | None = None
    parts: dict[str, Path] = field(default_factory=dict)

    @property
    def main(self) -> Path:
        """The folder or the file."""
        place = self.folder or self.file
        assert place is not None
        return place

    @property
    def revision(self) -> str | None:
        """The commit of the main folder; None for what is not in Hugging Face's cache."""
        return cache.commit_of(self.main)


class Places:
    """The places where this user's models may be."""

    def __init__(
        self,
        roots: tuple[Path, ...] = (),
        tree: comfy.Comfy | None = None,
        pins: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._tree = tree or comfy.Comfy()
        self._roots = (*roots, *self._tree.folders.get("diffusers", ()))
        self._pins = pins

    @classmethod
    def of(cls, settings: Settings) -> Places:
        """The places that the settings name, with the revisions that the store has pinned.

        Raises InvalidRequest when the setting `comfyui` cannot be used.
        """
        return cls(settings.model_roots, comfy.read(settings.comfyui), lambda: pinned(settings))

    def locate(self, card: ModelCard) -> Located:
        """Where the card's weights are, every file looked at.

        Raises ModelNotFound when a piece is not on this disk, ModelBroken when one is incomplete
        or damaged, both with the command that helps.
        """
        located = self.find(card)
        bad = [n for n in needs(located) if n.state != "found"]
        if bad:
            raise _incomplete(card, located, bad)
        return located

    def find(self, card: ModelCard) -> Located:
        """Where the card's weights begin, without a look at their files; may raise ModelNotFound.

        A folder counts when it has what its kind begins with: ``model_index.json``, a component's
        ``config.json``, the file.
        """
        parts = {name: self.part(card, name, part) for name, part in card.source.parts.items()}
        return replace(self.main(card), parts=parts)

    def main(self, card: ModelCard) -> Located:
        """`find` without the parts."""
        source = card.source
        if source.file is not None:
            file = self._file(source.file)
            if file is None:
                raise _not_here(card, f"there is no file {source.file}")
            return Located(file=file, config=source.config)
        if source.repo is not None:
            folder = self.pipeline_folder(source.repo, source.revision)
            if folder is None:
                raise _not_here(card, f"{source.repo} was not downloaded")
            return Located(folder=folder)
        folder = source.folder
        if folder is None or not folder.is_dir():
            raise _not_here(card, f"there is no folder {folder}")
        return Located(folder=folder)

    def pipeline_folder(self, repo: str, revision: str | None = None) -> Path | None:
        """The folder of a repository that holds a pipeline; None when it is not on this disk."""
        return next(self._folders(repo, revision, "", layout.INDEX), None)

    def part(self, card: ModelCard, name: str, part: Part) -> Path:
        """The folder or file of something that a card takes from elsewhere; or ModelNotFound."""
        if part.path is not None:
            place = part.path / part.subfolder / (part.file or "")
            if not place.exists():
                raise _not_here(card, f"for {name} there is no {place}")
            return place
        repo = part.repo or ""
        if part.file is not None:
            found = next(self._folders(repo, part.revision, part.subfolder, part.file), None)
            if found is not None:
                return found / part.file
            file = self._tree.find(Path(part.file).name)
            if file is not None:
                return file
        else:
            for marker in _MARKERS:
                found = next(self._folders(repo, part.revision, part.subfolder, marker), None)
                if found is not None:
                    return found
        raise _not_here(card, f"{name} ({_spelled(part)}) was not downloaded")

    def find_lora(self, name: str, folder: Path) -> Path:
        """The file of a LoRA by its path, its name in `folder`, in ComfyUI's, or its repository.

        Raises ModelNotFound when there is none, ModelBroken for a pickle.
        """
        given = Path(name).expanduser() if "\0" not in name else Path()
        if given.suffix in PICKLES:
            raise pickle(given)
        if given.is_file():
            return given
        file_name = name if name.endswith(".safetensors") else f"{name}.safetensors"
        if ".." not in Path(file_name).parts and not given.is_absolute():
            own = folder / file_name
            found = own if own.is_file() else self._tree.find(file_name, "loras")
            if found is not None:
                return found
        repo, _, inside = name.partition(":")
        if repo.count("/") == 1 and (file := self._lora_in_cache(repo, inside)) is not None:
            return file
        known = sorted(f.stem for f in folder.glob("*.safetensors"))
        near = nearest_names(name, known)
        hints = [f"Did you mean {' or '.join(near)}?"] if near else []
        if repo.count("/") == 1 and not given.is_absolute():
            hints.append(f"Download it once: hf download {repo} {inside}".rstrip())
        hints.append(f"Put its .safetensors file into {folder}, or give the file's path.")
        raise ModelNotFound(f"There is no LoRA {name!r}.", cause="", hints=hints)

    def _lora_in_cache(self, repo: str, inside: str) -> Path | None:
        """A LoRA's file in a repository that was downloaded: the one named, or the only one."""
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            return None
        if inside:
            folder = next(self._folders(repo, None, "", inside), None)
            return None if folder is None else folder / inside
        for folder in self._candidates(repo, None):
            files = sorted(folder.glob("*.safetensors"))
            if len(files) == 1:
                return files[0]
        return None

    def _file(self, file: Path) -> Path | None:
        """A user's single file: where the card says, or in ComfyUI's tree by its name."""
        if file.is_file():
            return file
        return self._tree.find(file.name, "checkpoints", "diffusion_models")

    def _folders(
        self, repo: str, revision: str | None, subfolder: str, marker: str
    ) -> Iterator[Path]:
        """The folders of a repository (or within it) that have the file `marker`."""
        for folder in self._candidates(repo, revision):
            if (folder / subfolder / marker).is_file():
                yield folder / subfolder

    def _candidates(self, repo: str, revision: str | None) -> Iterator[Path]:
        yield from cache.snapshots(repo, revision, self._pins().get(repo))
        owner, _, name = repo.partition("/")
        for root in self._roots:
            yield from (root / owner / name, root / f"{owner}--{name}", root / name)


def locate(card: ModelCard, settings: Settings) -> Located:
    """Where the card's weights are, whole; see `Places.locate`."""
    return Places.of(settings).locate(card)


def find_lora(name: str, family: str, settings: Settings) -> Path:
    """The file of a LoRA for a family, by path, name or repository; see `Places.find_lora`."""
    return Places.of(settings).find_lora(name, settings.home / "loras" / family)


def needs(located: Located) -> list[Need]:
    """Every file that a model needs of what was located, found or missing.

    Raises ModelBroken where ``model_index.json`` cannot be used.
    """
    found = main_needs(located, located.parts)
    for name, place in located.parts.items():
        found += part_needs(name, place)
    return found


def main_needs(located: Located, supplied: Collection[str]) -> list[Need]:
    """`needs` of the folder or file alone, without the components `supplied` by parts."""
    found: list[Need] = []
    folder = located.folder
    if located.file is not None:
        found.append(layout.file_need(located.file))
        folder = located.config
    if folder is None:
        return found
    if not (folder / layout.INDEX).is_file():
        return [*found, Need(layout.INDEX, "missing")]
    listed = list(layout.pipeline_needs(folder, supplied))
    if located.file is not None:  # the file replaces weights of the folder that says its shape
        listed = [n for n in listed if not n.path.endswith(".safetensors")]
    return found + listed


def part_needs(name: str, place: Path) -> list[Need]:
    """Every file of a part that was located at `place`; their paths begin with its name."""
    if place.is_file():
        return [_prefixed(name, layout.file_need(place))]
    if (place / layout.INDEX).is_file():
        return [_prefixed(name, n) for n in layout.pipeline_needs(place)]
    return list(layout.component_needs(place, prefix=name + "/"))


def pinned(settings: Settings) -> dict[str, str]:
    """The pinned commit of each repository, without making a store where there is none."""
    from kinoloom.store import DATABASE_NAME

    if not (settings.home / DATABASE_NAME).is_file():
        return {}
    from kinoloom.store.held import held_store  # loads the database library

    try:
        # Asked for each repository of each model: opening a store takes longer than all the rest.
        return held_store(settings).models.pins()
    except StoreBroken:  # whoever cannot do without the store says so; files are found all the same
        return {}


def remedy(card: ModelCard) -> str:
    """What brings a card's weights to this disk, or makes them whole."""
    if card.source.package is not None:
        return "reinstall kinoloom: the package is incomplete"
    parts = [p for p in card.source.parts.values() if p.repo is not None]
    if card.source.repo is not None or parts:
        return f"kinoloom models pull {card.id}"
    return "check the path in the model's card"


def _prefixed(name: str, need: Need) -> Need:
    return Need(f"{name}/{need.path}", need.state, need.size, need.reason)


def _spelled(part: Part) -> str:
    inside = "/".join(p for p in (part.subfolder, part.file) if p)
    return f"{part.repo}, {inside}" if inside else f"{part.repo}"


def _not_here(card: ModelCard, cause: str) -> ModelNotFound:
    return ModelNotFound(
        f"The weights of {card.id} are not on this machine: {cause}.",
        hints=[remedy(card), "or use another model: kinoloom models list"],
    )


def _incomplete(card: ModelCard, located: Located, bad: list[Need]) -> ModelBroken:
    lines = [f"{n.path}: {n.reason or n.state}" for n in bad[:10]]
    if len(bad) > len(lines):
        lines.append(f"and {len(bad) - len(lines)} more")
    return ModelBroken(
        f"The files of {card.id} in {located.main} are not complete.",
        cause="\n".join(lines),
        hints=[remedy(card), f"See every file: kinoloom models check {card.id}"],
    )
