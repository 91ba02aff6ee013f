from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoloom.backends import registry
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, ModelBroken, NotFound
from other_backends import Add, added


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    with added(tmp_path / "site", monkeypatch) as add:
        yield add


def test_our_own_come_first(add: Add) -> None:
    ours = ("local", "comfyui", "openai", "runway", "google", "replicate")
    assert registry.names() == ours
    add(zeta="    name = 'zeta'", alpha="    name = 'alpha'")
    assert registry.names() == (*ours, "alpha", "zeta")


def test_a_backend_is_made_once_for_the_same_settings(add: Add, settings: Settings) -> None:
    add(mine="    name = 'mine'")
    made = registry.backend("mine", settings)
    assert made.name == "mine"
    assert registry.backend("mine", settings.model_copy()) is made
    other = settings.model_copy(update={"prefer": "cost"})
    assert registry.backend("mine", other) is not made


def test_threads_get_the_same_one(add: Add, settings: Settings) -> None:
    add(mine="    name = 'mine'")
    start = threading.Barrier(8)
    found: list[object] = []

    def ask() -> None:
        start.wait()
        found.append(registry.backend("mine", settings))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_one_that_is_slow_to_make_keeps_nobody_waiting(add: Add, settings: Settings) -> None:
    add(
        slow="""
    import threading
    entered, go = threading.Event(), threading.Event()
    def __init__(self, settings):
        self.entered.set()
        self.go.wait(30)
""",
        quick="    name = 'quick'",
    )
    slow = registry._class("slow")
    thread = threading.Thread(target=registry.backend, args=("slow", settings))
    thread.start()
    try:
        assert slow.entered.wait(30)  # type: ignore[attr-defined]
        assert registry.backend("quick", settings).name == "quick"
    finally:
        slow.go.set()  # type: ignore[attr-defined]
        thread.join()


def test_a_name_that_there_is_not(settings: Settings) -> None:
    with pytest.raises(NotFound) as caught:
        registry.backend("runwya", settings)
    assert caught.value.hints[0] == "Did you mean runway?"


def test_a_package_of_ours_that_is_missing_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._OWN, "runway", "kinoloom.backends.nothing:None")  # type: ignore[arg-type]
    with pytest.raises(MissingPackage) as caught:
        registry.backend("runway", settings)
    assert caught.value.hints == ("pip install 'kinoloom[runway]'",)
    assert "kinoloom.backends.nothing" in caught.value.cause


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("# broken\nraise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("# nothing in it\n", "AttributeError"),
        ("    def __init__(self): pass", "TypeError"),
        ("    def __init__(self, settings): raise OSError('no disk')", "OSError: no disk"),
    ],
)
def test_another_package_that_is_broken_is_named(
    add: Add, settings: Settings, body: str, cause: str
) -> None:
    add(broken=body)
    with pytest.raises(MissingPackage) as caught:
        registry.backend("broken", settings)
    assert cause in caught.value.cause
    assert "kinoloom_test_broken" in "".join(caught.value.hints).replace("-", "_")


def test_broken_ones_hide_no_cards(add: Add, settings: Settings) -> None:
    add(
        good="    name = 'good'",
        bad="    def cards(self, known): raise ValueError('none')",
        spoof="    def cards(self, known): return [card('runway-cheap', 'runway', price='free')]",
        worse="# broken\nraise SyntaxError('x')\n",
    )
    known = Catalog.load(settings.models)
    assert [card.id for card in registry.cards(known, settings)] == ["good-one"]
    for name, kind in (("bad", MissingPackage), ("spoof", ModelBroken), ("worse", MissingPackage)):
        with pytest.raises(kind):
            registry.cards_of(name, known, settings)


def test_a_backend_may_say_itself_why_it_has_no_cards(add: Add, settings: Settings) -> None:
    add(
        sad="""
    def cards(self, known):
        from kinoloom.errors import InvalidMedia
        raise InvalidMedia("A folder is missing.", hints=["Make it."])
"""
    )
    with pytest.raises(KinoloomError, match="A folder is missing"):
        registry.cards_of("sad", Catalog.load(settings.models), settings)


def test_an_entry_point_cannot_take_the_place_of_one_of_ours(add: Add, settings: Settings) -> None:
    add(runway="    name = 'runway'")
    assert registry.names().count("runway") == 1
    assert registry._class("runway").__module__.startswith("kinoloom.backends.runway")


@pytest.mark.parametrize(
    ("name", "changes", "variable"),
    [
        ("runway", {"runway": {"api_key": "k"}}, "RUNWAYML_API_SECRET"),
        ("google", {"google": {"project": "p"}}, "GEMINI_API_KEY"),
        ("replicate", {"replicate": {"api_key": "k"}}, "REPLICATE_API_TOKEN"),
        ("comfyui", {"comfyui": {"servers": "http://127.0.0.1:1"}}, None),
    ],
)
def test_what_is_set_up_is_usable(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, dict[str, str]],
    variable: str | None,
) -> None:
    for names in registry.KEY_VARIABLES.values():
        for known in names:
            monkeypatch.delenv(known, raising=False)
    assert not registry.usable(name, settings)
    assert registry.usable(name, Settings(home=settings.home, backends=changes))  # type: ignore[arg-type]
    if variable is not None:
        monkeypatch.setenv(variable, "k")
        assert registry.usable(name, settings)


def test_variables_are_those_that_the_settings_name() -> None:
    """They are said in two places: where a setting is described, and where nothing is loaded."""
    from kinoloom.config_schema import fields_of, variables

    for name, known in registry.KEY_VARIABLES.items():
        fields = fields_of(Settings.model_fields["backends"].annotation)
        assert fields is not None
        below = fields_of(fields[name].annotation) or {}
        told = [v for info in below.values() for v in variables(info)]
        assert set(known) <= set(told)
