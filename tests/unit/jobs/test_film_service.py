from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from film_set import WORDS, FilmSet, film_set
from kinoloom.config import Settings
from kinoloom.errors import BudgetExceeded, Conflict, InvalidRequest, NotFound
from kinoloom.film.board import ShotDefaults, Storyboard
from kinoloom.jobs.service import FilmPart
from kinoloom.jobs.spending import reserve_take
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.store import Store


@pytest.fixture
def films(tmp_path: Path, store: Store) -> Iterator[FilmSet]:
    settings = Settings(home=tmp_path / "home", device="cpu")
    with film_set(settings, store) as made:
        yield made


def test_a_film_without_a_seed_gets_one_that_stays(films: FilmSet) -> None:
    film = films.films.create(films.board(seed=None))
    seed = Storyboard.model_validate(film.storyboard).seed
    assert seed is not None
    changed = films.films.update(film.id, films.board(seed=None, title="Other"))
    assert changed.title == "Other"
    assert Storyboard.model_validate(changed.storyboard).seed == seed


def test_new_takes_are_made_and_any_can_be_chosen_without_rendering(films: FilmSet) -> None:
    film = films.films.create(films.board("keyframe")).id
    first = films.render(film)
    count = len(films.rendered())

    takes = films.films.retake(film, "shot-2", seed=50, candidates=2)
    assert [(t.number, t.seed, t.chosen) for t in takes] == [(2, 50, True), (3, 51, False)]
    second = films.render(film)
    assert films.rendered(count) == [WORDS[1]] * 2
    assert second.clip_id != first.clip_id

    films.films.choose(film, "shot-2", 3)
    third = films.render(film)
    taken, said = films.films.choose(film, "shot-2", 1)
    assert taken.chosen
    assert "nothing is rendered" in said
    assert films.render(film).clip_id == first.clip_id
    assert third.clip_id not in (first.clip_id, second.clip_id)
    assert len(films.rendered()) == count + 2


def test_a_take_may_have_other_words(films: FilmSet) -> None:
    film = films.films.create(films.board("keyframe")).id
    films.render(film)
    count = len(films.rendered())
    films.films.retake(film, "shot-1", prompt="a cube")
    films.render(film)
    assert films.rendered(count) == ["a cube"]
    assert films.films.status(film).shots[0]["prompt"] == "a cube"


def test_in_a_chain_another_take_lets_what_follows_be_made_again(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    first = films.render(film)
    films.films.retake(film, "shot-3", seed=9)
    films.render(film)
    assert films.rendered(4) == [WORDS[2], WORDS[3]]
    _, said = films.films.choose(film, "shot-3", 1)
    assert "shot-4" in said
    # It goes on from the take that is not shown any more.
    states = [shot["state"] for shot in films.films.status(film).shots]
    assert states == ["done", "done", "done", "waiting"]
    assert films.films.plan(films.board(), film_id=film).clips == 1
    assert films.render(film).clip_id == first.clip_id
    assert len(films.rendered()) == 6


def test_what_a_film_has_is_not_planned_again(films: FilmSet) -> None:
    board = films.board()
    film = films.films.create(board).id
    assert films.films.plan(board, film_id=film).clips == 4
    films.render(film)
    assert films.films.plan(board, film_id=film).clips == 0
    edited = films.board(words=(*WORDS[:2], "a cube", WORDS[3]))
    assert films.films.plan(edited, film_id=film).clips == 2
    # The words are the same, but not what is made of them.
    slower = films.board(defaults=ShotDefaults(steps=9))
    assert films.films.plan(slower, film_id=film).clips == 4
    third = board.shots[2].model_copy(update={"frames": 7})
    shorter = films.board(shots=(*board.shots[:2], third, board.shots[3]))
    assert films.films.plan(shorter, film_id=film).clips == 1  # from another frame of the same clip
    films.films.update(film, slower)
    assert {shot["state"] for shot in films.films.status(film).shots} == {"waiting"}


def test_a_film_that_is_rendered_is_not_changed(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    films.child.open.clear()
    job = films.films.render(film)
    assert films.films.render(film).id == job.id
    for wish in (
        lambda: films.films.update(film, films.board()),
        lambda: films.films.retake(film, "shot-1"),
        lambda: films.films.delete(film),
    ):
        with pytest.raises(Conflict):
            wish()
    films.jobs.cancel(job.id)
    films.child.open.set()


def test_mistakes_are_told(films: FilmSet, tmp_path: Path) -> None:
    film = films.films.create(films.board()).id
    with pytest.raises(InvalidRequest):
        films.films.retake(film, "shot-1", seed=-1, candidates=99)
    with pytest.raises(NotFound, match="no shot"):
        films.films.retake(film, "shot-9")
    with pytest.raises(NotFound, match="no take"):
        films.films.choose(film, "shot-1", 7)
    with pytest.raises(Conflict, match="not finished"):
        films.films.export(film, tmp_path / "film.mp4")
    with pytest.raises(NotFound):
        films.films.status("nothing")


def test_the_file_of_a_film_is_copied(films: FilmSet, tmp_path: Path) -> None:
    film = films.films.create(films.board()).id
    films.render(film)
    target = tmp_path / "new" / "film.mp4"
    assert films.films.export(film, target) == target
    assert target.read_text().count("seed") == 4


def test_a_clip_of_a_film_counts_against_the_films_budget(films: FilmSet) -> None:
    film = films.films.create(films.board(budget=Decimal("0.50"))).id
    request = VideoRequest.checked(prompt="a ball", model="spark", seed=1)
    job = films.jobs.submit(request, hold=True, part=FilmPart(film, "parent", "shot-1"))
    plan = Plan.model_validate(job.plan)
    plan = plan.model_copy(
        update={"cost": plan.cost.model_copy(update={"amount": Decimal("0.30")})}
    )
    call = reserve_take(films.store, films.settings, job, plan, 0)
    assert call.film == film
    with pytest.raises(BudgetExceeded, match="budget of this film"):
        reserve_take(films.store, films.settings, job, plan, 1)


def test_a_film_is_forgotten_and_its_clips_stay(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    clip = films.render(film).clip_id
    films.films.delete(film)
    assert films.films.list() == []
    assert films.store.clips.get(str(clip)) is not None


def test_pictures_that_a_film_names_stay_though_no_job_needs_them(
    films: FilmSet, store: Store, tmp_path: Path
) -> None:
    picture = tmp_path / "first.png"
    picture.write_bytes(b"a picture")
    kept = store.assets.put_file(picture, "image")
    board = films.board()
    first = board.shots[0].model_copy(update={"start": kept.path})
    film = films.films.create(board.model_copy(update={"shots": (first, *board.shots[1:])}))
    assert store.assets.collect(timedelta(0)) == 0
    assert not store.assets.discard(kept.digest)
    films.films.update(film.id, board)
    assert store.assets.discard(kept.digest)
