from __future__ import annotations

from datetime import UTC, datetime

from kinoloom.store import Store


def test_a_licence_is_accepted_once(store: Store) -> None:
    assert store.models.accepted("a", "MIT") is None
    before = datetime.now(UTC)
    first = store.models.accept("a", "MIT")
    assert before <= first <= datetime.now(UTC)
    assert store.models.accept("a", "MIT") == first == store.models.accepted("a", "MIT")
    assert store.models.accepted("a", "MIT-2") is None
    assert store.models.accepted("b", "MIT") is None


def test_pins(store: Store) -> None:
    assert store.models.pins() == {}
    store.models.pin("a/b", "1" * 40)
    store.models.pin("c/d", "2" * 40)
    store.models.pin("a/b", "3" * 40)
    assert store.models.pins() == {"a/b": "3" * 40, "c/d": "2" * 40}
    store.models.unpin("a/b")
    store.models.unpin("never/there")
    assert store.models.pins() == {"c/d": "2" * 40}
