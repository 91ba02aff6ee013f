from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from kinoloom.errors import Conflict
from kinoloom.store import Store
from kinoloom.store import keys as module


def test_a_key_is_known_by_its_secret(store: Store) -> None:
    assert store.keys.any() is False
    key, secret = store.keys.create("ci", ("write", "read"), Decimal("5.1"))
    assert re.fullmatch(r"kl_[A-Za-z0-9_-]{43}", secret)
    assert secret.startswith(key.prefix)
    assert (key.scopes, key.budget) == (frozenset({"read", "write"}), Decimal("5.1"))
    assert store.keys.verify(secret) == key
    assert store.keys.any() is True
    for wrong in ("", "kl_", secret[:-1], secret + "x", key.prefix, key.id, "\0", "\udc80"):
        assert store.keys.verify(wrong) is None
    other, another_secret = store.keys.create("other", ())
    assert another_secret != secret
    assert store.keys.verify(another_secret) == other


def test_the_secret_is_nowhere_in_the_store(sqlite_store: Store) -> None:
    _, secret = sqlite_store.keys.create("ci", ("read",))
    sqlite_store.keys.verify(secret)
    sqlite_store.close()
    for file in sqlite_store.home.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes()


def test_as_dict_is_json(store: Store) -> None:
    key, secret = store.keys.create("ci", ("admin", "read"), Decimal("2.50"))
    text = json.dumps(key.as_dict())
    told = json.loads(text)
    assert (told["scopes"], told["budget"]) == (["read", "admin"], "2.5")
    assert secret not in text


def test_a_revoked_key_opens_nothing(store: Store) -> None:
    key, secret = store.keys.create("ci", ("read",))
    revoked = store.keys.revoke("ci")
    assert revoked is not None
    assert revoked.id == key.id
    assert revoked.revoked_at is not None
    assert store.keys.verify(secret) is None
    assert store.keys.any() is False
    assert store.keys.revoke("ci") is None
    assert store.keys.list() == [revoked]
    again, _ = store.keys.create("ci", ("read",))  # the name is free again
    assert [one.id for one in store.keys.list()] == [again.id, key.id]


def test_a_key_is_revoked_by_id_name_or_prefix(store: Store) -> None:
    made = [store.keys.create(name, ("read",)) for name in ("a", "b", "c", "d")]
    for which in (made[0][0].id, made[1][0].name, made[2][0].prefix):
        assert store.keys.revoke(which) is not None
    assert [store.keys.verify(secret) is None for _, secret in made] == [True, True, True, False]


def test_names_of_keys_in_use_differ(store: Store) -> None:
    store.keys.create("ci", ("read",))
    with pytest.raises(Conflict, match="'ci'"):
        store.keys.create("ci", ("admin",))
    named, _ = store.keys.create(store.keys.list()[0].prefix, ())
    with pytest.raises(Conflict, match="Several"):  # one is called what another begins with
        store.keys.revoke(named.name)
    assert store.keys.revoke(named.id) is not None


def test_a_scope_that_is_none(store: Store) -> None:
    with pytest.raises(ValueError, match="root"):
        store.keys.create("ci", ("read", "root"))
    assert store.keys.list() == []


def test_the_last_use_is_written_once_a_minute(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = store.keys.create("ci", ("read",))

    def last_used() -> datetime:
        store.keys.verify(secret)
        used = store.keys.list()[0].last_used_at
        assert used is not None
        return used

    first = last_used()
    assert datetime.now(UTC) - first < timedelta(minutes=1)
    assert last_used() == first
    monkeypatch.setattr(module, "_USE_INTERVAL", timedelta(0))
    assert last_used() > first
