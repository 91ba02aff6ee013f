from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from tiny import write_model

# The fixtures of real servers; none is started before a test asks for it.
pytest_plugins = ["services"]

# A shell starts background commands with SIGINT ignored, and processes inherit that: the tests of
# interruption would then wait for what never comes.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that share an id, xdist runs one and says nothing of the others: refuse to begin."""
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(twice)}")


@pytest.fixture(scope="session")
def tiny_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's card of a tiny random model, and the model. Not to be changed."""
    folder = tmp_path_factory.mktemp("cards")
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_card(tiny_cards: Path) -> ModelCard:
    return Catalog.load(tiny_cards).get("tiny")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch: with such small arrays the others would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def studio(
    tmp_path: Path, tiny_cards: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user's place: an empty current folder, a store of its own and the tiny model by default.

    Clips are written to its folder ``out``, which does not exist yet.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    for name, value in {
        "HOME": tmp_path / "home",
        "OUTPUTS": tmp_path / "out",
        "MODELS": tiny_cards,
        "DEFAULT_MODEL": "tiny",
        "DEVICE": "cpu",
        "DTYPE": "auto",
    }.items():
        monkeypatch.setenv(f"KINOLOOM_{name}", str(value))
    return tmp_path
