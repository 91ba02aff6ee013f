from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from kinoloom.errors import NotFound
from kinoloom.store.films import FilmRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def _film(store: Store, **values: object) -> FilmRecord:
    fields = {"title": "Dusk", "mode": "chaining", "storyboard": {"title": "Dusk"}} | values
    return store.films.add(FilmRecord(**fields))  # type: ignore[arg-type]


def _take(store: Store, film: str, shot: str = "one", **values: object) -> int:
    fields = {"spec": "a" * 64, "seed": 1, "prompt": "a ball"} | values
    return store.films.add_take(film, shot, **fields).number  # type: ignore[arg-type]


def _chosen(store: Store, film: str, shot: str = "one") -> list[int]:
    return [take.number for take in store.films.takes(film, shot) if take.chosen]


def test_a_film_is_kept_as_it_was(store: Store) -> None:
    film = _film(store, owner="me", budget=Decimal("2.50"))
    assert store.films.get(film.id) == film
    assert film.as_dict()["budget"] == "2.5"


def test_nobody_sees_the_film_of_another(store: Store) -> None:
    film = _film(store, owner="me")
    assert store.films.get(film.id, owner="you") is None
    assert store.films.list(owner="you") == []
    assert store.films.list(owner="me") == [film]


def test_films_come_in_pages_newest_first(store: Store) -> None:
    first, second, third = (_film(store) for _ in range(3))
    assert store.films.list(limit=2) == [third, second]
    assert store.films.list(limit=2, before=second.id) == [first]


def test_a_change_is_kept_and_dated(store: Store) -> None:
    film = _film(store)
    changed = store.films.update(film.id, title="Dawn", clip_id="c")
    assert (changed.title, changed.clip_id) == ("Dawn", "c")
    assert changed.updated_at > film.updated_at
    assert store.films.get(film.id) == changed


def test_what_there_is_not_is_said(store: Store) -> None:
    film = _film(store)
    for wrong in (
        lambda: store.films.update("x", title="y"),
        lambda: store.films.keep_keyframe("x", "one", "c"),
        lambda: _take(store, "x"),
        lambda: store.films.choose(film.id, "one", 1),
        lambda: store.films.update_take(film.id, "one", 1, seam=0.5),
    ):
        with pytest.raises(NotFound):
            wrong()


def test_keyframes_are_added_one_by_one(store: Store) -> None:
    film = _film(store)
    store.films.keep_keyframe(film.id, "one", "a")
    store.films.keep_keyframe(film.id, "two", "b")
    store.films.keep_keyframe(film.id, "one", "c")
    found = store.films.get(film.id)
    assert found is not None
    assert found.keyframes == {"one": "c", "two": "b"}


def test_takes_count_from_one_for_each_shot_and_one_is_chosen(store: Store) -> None:
    film = _film(store).id
    assert _take(store, film, chosen=True) == 1
    assert _take(store, film) == 2
    assert _take(store, film, "two", chosen=True) == 1
    assert _chosen(store, film) == [1]

    assert _take(store, film, chosen=True) == 3
    assert _chosen(store, film) == [3]
    assert store.films.choose(film, "one", 2).chosen
    assert _chosen(store, film) == [2]
    assert _chosen(store, film, "two") == [1]


def test_a_take_learns_what_it_is_made_of(store: Store) -> None:
    film = _film(store).id
    number = _take(store, film)
    made = [{"key": "k", "clip": "c", "asked": 25}]
    take = store.films.update_take(
        film, "one", number, segments=made, seam=0.75, cost=Decimal("0.30"), currency="USD"
    )
    assert store.films.takes(film) == [take]
    told = take.as_dict()
    assert (told["segments"], told["seam"], told["cost"]) == (made, 0.75, "0.3")


def test_a_film_goes_with_its_takes(store: Store) -> None:
    film, other = _film(store).id, _film(store).id
    _take(store, film)
    _take(store, other)
    assert store.films.delete(film)
    assert not store.films.delete(film)
    assert store.films.takes(film) == []
    assert len(store.films.takes(other)) == 1


def test_the_parts_of_a_job_are_found(store: Store) -> None:
    def job(**values: object) -> JobRecord:
        fields = {"queue": "cpu", "origin": "api", "request": {}, "task": "t2v", "model": "m"}
        record = JobRecord(**(fields | {"backend": "local"} | values))  # type: ignore[arg-type]
        return store.jobs.add(record)[0]

    parent = job(kind="film", film="f")
    first = job(parent=parent.id, film="f")
    second = job(parent=parent.id, film="f", state="held")
    job()
    assert [found.id for found in store.films.jobs_of(parent.id)] == [first.id, second.id]
    assert [found.id for found in store.films.jobs_of(parent.id, states=["held"])] == [second.id]
    found = store.jobs.get(first.id)
    assert found is not None
    assert (found.parent, found.film) == (parent.id, "f")
