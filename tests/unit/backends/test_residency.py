from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kinoloom.backends.local.residency import Residency

MEGABYTE = 1024 * 1024


def module(megabytes: int = 1) -> torch.nn.Module:
    return torch.nn.Linear(512 * megabytes, 512, bias=False)


def pipe(*modules: torch.nn.Module) -> Any:
    named: dict[str, Any] = {str(i): m for i, m in enumerate(modules)}
    return SimpleNamespace(components=named | {"scheduler": object(), "none": None})


def never() -> Any:
    pytest.fail("it is loaded already")


def test_a_pipeline_is_loaded_once() -> None:
    resident = Residency()
    made = pipe(module())
    assert resident.get("a", lambda: made) is made
    assert resident.get("a", never) is made
    assert resident.held == ("a",)
    assert resident.bytes == MEGABYTE


def test_the_least_recently_used_goes_first() -> None:
    resident = Residency(budget=3 * MEGABYTE)
    for key in "abc":
        resident.get(key, lambda: pipe(module()))
    resident.get("a", never)
    resident.get("d", lambda: pipe(module()))
    assert resident.held == ("c", "a", "d")
    resident.get("e", lambda: pipe(module(2)))
    assert resident.held == ("d", "e")
    assert resident.bytes == 3 * MEGABYTE


def test_without_a_budget_all_stay() -> None:
    resident = Residency()
    for key in "abcdef":
        resident.get(key, lambda: pipe(module()))
    assert len(resident.held) == 6


def test_the_one_that_is_wanted_now_stays_even_if_it_is_too_large() -> None:
    resident = Residency(budget=MEGABYTE)
    resident.get("a", lambda: pipe(module()))
    large = pipe(module(4))
    assert resident.get("b", lambda: large) is large
    assert resident.held == ("b",)


def test_what_is_shared_counts_once() -> None:
    resident = Residency(budget=3 * MEGABYTE)
    encoder = module()
    resident.get("a", lambda: pipe(encoder, module()))
    resident.get("b", lambda: pipe(encoder, module()))
    assert resident.held == ("a", "b")
    assert resident.bytes == 3 * MEGABYTE
    resident.drop("a")
    assert resident.bytes == 2 * MEGABYTE


def test_buffers_count_too() -> None:
    resident = Residency()
    made = module()
    made.register_buffer("table", torch.zeros(256, 1024))
    resident.get("a", lambda: pipe(made))
    assert resident.bytes == 2 * MEGABYTE


def test_room_is_made_before_it_is_needed() -> None:
    resident = Residency()
    for key in "abcd":
        resident.get(key, lambda: pipe(module()))
    total = 5 * MEGABYTE

    def free() -> int:
        return total - resident.bytes

    resident.make_room(free, MEGABYTE)
    assert resident.held == ("a", "b", "c", "d"), "there is room already"
    resident.make_room(free, 3 * MEGABYTE)
    assert resident.held == ("c", "d")
    resident.make_room(free, 9 * MEGABYTE)
    assert resident.held == ()


def test_where_the_free_memory_is_not_known_nothing_is_let_go_of() -> None:
    resident = Residency()
    resident.get("a", lambda: pipe(module()))
    resident.make_room(lambda: None, 10**15)
    assert resident.held == ("a",)


@pytest.mark.parametrize("how", ["drop", "clear", "make_room", "shrink"])
def test_what_goes_is_really_gone(how: str) -> None:
    resident = Residency(budget=2 * MEGABYTE)
    gone = weakref.ref(resident.get("a", lambda: pipe(module())).components["0"])
    gc.disable()  # it must not be by chance that it is collected
    try:
        {
            "drop": lambda: resident.drop("a"),
            "clear": resident.clear,
            "make_room": lambda: resident.make_room(lambda: 0, 1),
            "shrink": lambda: resident.get("b", lambda: pipe(module(2))),
        }[how]()
        assert gone() is None
    finally:
        gc.enable()
    assert "a" not in resident.held


def test_a_load_that_fails_leaves_nothing() -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    resident = Residency()
    with pytest.raises(ZeroDivisionError):
        resident.get("a", fail)
    assert resident.held == ()
    resident.drop("a")
    assert resident.bytes == 0
