from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinoloom.backends.local import loader
from kinoloom.backends.local.sharing import Shared
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Source
from kinoloom.config import Settings
from kinoloom.errors import InsufficientMemory, KinoloomError, ModelBroken, ModelNotFound
from kinoloom.weights.places import Located, locate


def load(card: ModelCard, shared: Shared | None = None, **options: Any) -> Any:
    """The pipeline as it is in the card's folder, without the look at its files beforehand."""
    located = Located(folder=card.source.folder)
    recipe = card.pipelines["t2v"]
    return loader.load(card, recipe, located, torch.float32, shared or Shared(), **options)


def refusal(
    card: ModelCard,
    kind: type[KinoloomError] = ModelBroken,
    load: Callable[[ModelCard], object] = load,
) -> KinoloomError:
    with pytest.raises(KinoloomError) as caught:
        load(card)
    assert type(caught.value) is kind
    assert caught.value.hints
    return caught.value


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelCard], object]:
    """Find a card's weights on a disk without any other model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return lambda card: locate(card, Settings(home=tmp_path / "home"))


def test_a_users_model_is_loaded_from_beside_its_card(
    tiny_card: ModelCard, tiny_cards: Path
) -> None:
    pipe = load(tiny_card)
    stored = load_file(tiny_cards / "tiny" / "vae" / "diffusion_pytorch_model.safetensors")
    for name, value in pipe.vae.state_dict().items():
        assert torch.equal(value, stored[name])


def test_weights_come_in_the_wanted_dtype(tiny_card: ModelCard) -> None:
    located = Located(folder=tiny_card.source.folder)
    recipe = tiny_card.pipelines["t2v"]
    pipe = loader.load(tiny_card, recipe, located, torch.bfloat16, Shared())
    assert {p.dtype for p in pipe.transformer.parameters()} == {torch.bfloat16}


def test_weights_that_are_there_in_half_precision_only(
    own_copy: Callable[[], ModelCard], tmp_path: Path
) -> None:
    before = load(own_copy())
    for file in (tmp_path / "tiny").rglob("*.safetensors"):
        halved = {name: value.half() for name, value in load_file(file).items()}
        save_file(halved, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        file.unlink()
    pipe = load(own_copy())
    for part in ("transformer", "vae", "text_encoder"):
        expected = getattr(before, part).state_dict()
        for name, value in getattr(pipe, part).state_dict().items():
            assert value.dtype == expected[name].dtype
            torch.testing.assert_close(value, expected[name], atol=1e-3, rtol=1e-3)


def test_a_missing_folder(
    tiny_card: ModelCard, tmp_path: Path, found: Callable[[ModelCard], object]
) -> None:
    card = tiny_card.model_copy(update={"source": Source(path=tmp_path / "gone")})
    error = refusal(card, ModelNotFound, found)
    assert str(tmp_path / "gone") in error.message
    assert "path" in error.hints[0]


def test_a_missing_folder_of_the_package_is_an_incomplete_installation(
    tiny_card: ModelCard, found: Callable[[ModelCard], object]
) -> None:
    card = tiny_card.model_copy(update={"source": Source(package="catalog/weights/gone")})
    assert "reinstall" in refusal(card, ModelNotFound, found).hints[0]


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What this thread asks of the network from now on, which it gets none of."""
    asked: list[object] = []
    here = threading.get_ident()

    def refused(real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != here:  # what earlier tests left running is not meant
                return real(*args, **options)
            asked.append(args)
            raise OSError("no network in this test")

        return ask

    monkeypatch.setattr(socket, "getaddrinfo", refused(socket.getaddrinfo))
    monkeypatch.setattr(socket.socket, "connect", refused(socket.socket.connect))
    return asked


def test_a_repository_that_is_not_in_the_cache_is_not_fetched(
    tiny_card: ModelCard,
    found: Callable[[ModelCard], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = no_network(monkeypatch)
    card = tiny_card.model_copy(update={"source": Source(repo="nobody/no-such-model")})
    error = refusal(card, ModelNotFound, found)
    assert not asked
    assert "kinoloom models pull tiny" in error.hints


def test_a_folder_that_lacks_a_component_is_not_completed_from_the_network(
    own_copy: Callable[[], ModelCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = no_network(monkeypatch)
    (tmp_path / "tiny" / "tokenizer" / "tokenizer.json").unlink()
    refusal(own_copy())
    assert not asked


@pytest.mark.parametrize("name", ["NoSuchPipeline", "FlowMatchEulerDiscreteScheduler", "utils"])
def test_what_is_no_pipeline_class(tiny_card: ModelCard, name: str) -> None:
    recipe = tiny_card.pipelines["t2v"].model_copy(update={"class_name": name})
    card = tiny_card.model_copy(update={"pipelines": {"t2v": recipe}})
    assert name in refusal(card).message


def weights(folder: Path, component: str) -> Path:
    return next((folder / "tiny" / component).glob("*.safetensors"))


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
def test_truncated_weights(
    own_copy: Callable[[], ModelCard], tmp_path: Path, component: str
) -> None:
    file = weights(tmp_path, component)
    file.write_bytes(file.read_bytes()[:-100])
    error = refusal(own_copy())
    assert str(tmp_path / "tiny") in error.message
    assert error.cause


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae"])
def test_weights_that_are_not_in_the_file_are_not_made_up(
    own_copy: Callable[[], ModelCard], tmp_path: Path, component: str
) -> None:
    file = weights(tmp_path, component)
    tensors = load_file(file)
    lost = sorted(tensors)[len(tensors) // 2]
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    error = refusal(own_copy())
    assert component in error.message
    # transformers may refuse by itself, in its own words.
    assert lost.rpartition(".")[2] in error.message + error.cause


def test_weights_of_another_shape(own_copy: Callable[[], ModelCard], tmp_path: Path) -> None:
    file = weights(tmp_path, "transformer")
    tensors = load_file(file)
    tensors["proj_in.weight"] = torch.zeros(3, 3)
    save_file(tensors, file, metadata={"format": "pt"})
    refusal(own_copy())


def test_a_missing_weights_file(own_copy: Callable[[], ModelCard], tmp_path: Path) -> None:
    weights(tmp_path, "vae").unlink()
    refusal(own_copy())


@pytest.mark.parametrize(
    "name", ["model_index.json", "vae/config.json", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_broken_json(
    own_copy: Callable[[], ModelCard], tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / "tiny" / name).write_text(content)
    refusal(own_copy())


def test_a_folder_without_an_index(own_copy: Callable[[], ModelCard], tmp_path: Path) -> None:
    (tmp_path / "tiny" / "model_index.json").unlink()
    refusal(own_copy())


def test_pickled_weights_are_never_read(own_copy: Callable[[], ModelCard], tmp_path: Path) -> None:
    file = weights(tmp_path, "vae")
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    refusal(own_copy())


@pytest.mark.parametrize("place", ["component", "pipeline"])
def test_code_in_the_folder_is_never_run(
    own_copy: Callable[[], ModelCard], tmp_path: Path, place: str
) -> None:
    folder, trace = tmp_path / "tiny", tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass Odd: pass\n"
    index = json.loads((folder / "model_index.json").read_text())
    if place == "component":
        (folder / "vae" / "odd.py").write_text(code)
        index["vae"] = ["odd", "Odd"]
    else:
        (folder / "odd.py").write_text(code)
        index["_class_name"] = ["odd", "Odd"]
    (folder / "model_index.json").write_text(json.dumps(index))
    refusal(own_copy())
    assert not trace.exists()


def test_too_little_memory_for_the_weights(
    tiny_card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", full)
    refusal(tiny_card, InsufficientMemory)


def test_only_what_is_asked_for_is_loaded(tiny_card: ModelCard) -> None:
    words = load(tiny_card, only=("text_encoder", "tokenizer"))
    assert words.text_encoder is not None
    assert words.tokenizer is not None
    assert (words.transformer, words.vae, words.scheduler) == (None, None, None)
    rest = load(tiny_card, without=("text_encoder", "tokenizer"))
    assert (rest.text_encoder, rest.tokenizer) == (None, None)
    assert rest.transformer is not None
    assert rest.vae is not None
    assert rest.scheduler is not None


def test_what_is_left_out_need_not_be_whole(
    own_copy: Callable[[], ModelCard], tmp_path: Path
) -> None:
    file = weights(tmp_path, "text_encoder")
    file.write_bytes(file.read_bytes()[:-100])
    card = own_copy()
    load(card, without=("text_encoder", "tokenizer"))
    with pytest.raises(ModelBroken):
        load(card, only=("text_encoder", "tokenizer"))


def test_what_another_pipeline_has_is_shared_with_it(tiny_card: ModelCard) -> None:
    shared = Shared()
    first, second = load(tiny_card, shared), load(tiny_card, shared)
    for name in ("text_encoder", "transformer", "vae"):
        assert getattr(first, name) is getattr(second, name)
    assert first.scheduler is not second.scheduler
    assert load(tiny_card).vae is not first.vae


def test_a_part_takes_the_place_of_the_folders_component(
    own_copy: Callable[[], ModelCard], tmp_path: Path, tiny_cards: Path
) -> None:
    part = tmp_path / "elsewhere"
    shutil.copytree(tiny_cards / "tiny" / "transformer", part)
    file = next(part.glob("*.safetensors"))
    tensors = load_file(file)
    tensors["proj_out.bias"] = torch.full_like(tensors["proj_out.bias"], 3.0)
    save_file(tensors, file, metadata={"format": "pt"})
    card = own_copy()
    weights(tmp_path, "transformer").unlink()  # nobody needs it
    located = Located(folder=card.source.folder, parts={"transformer": part})
    pipe = loader.load(card, card.pipelines["t2v"], located, torch.float32, Shared())
    assert (pipe.transformer.proj_out.bias == 3.0).all()
    assert pipe.parts == {"transformer": part}
    without = loader.load(
        card, card.pipelines["t2v"], located, torch.float32, Shared(), without=("transformer",)
    )
    assert without.transformer is None


def test_a_part_that_is_not_whole_is_refused(
    tiny_card: ModelCard, tiny_cards: Path, tmp_path: Path
) -> None:
    part = tmp_path / "elsewhere"
    shutil.copytree(tiny_cards / "tiny" / "transformer", part)
    file = next(part.glob("*.safetensors"))
    tensors = load_file(file)
    del tensors["proj_out.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    located = Located(folder=tiny_card.source.folder, parts={"transformer": part})
    with pytest.raises(ModelBroken, match=r"proj_out\.weight"):
        loader.load(tiny_card, tiny_card.pipelines["t2v"], located, torch.float32, Shared())


def test_a_part_that_no_component_is_called_after_is_the_familys_to_load(
    tiny_card: ModelCard, tmp_path: Path
) -> None:
    located = Located(folder=tiny_card.source.folder, parts={"ip_adapter": tmp_path / "x"})
    pipe = loader.load(tiny_card, tiny_card.pipelines["t2v"], located, torch.float32, Shared())
    assert pipe.parts == {"ip_adapter": tmp_path / "x"}
