from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from film_set import WORDS, FilmSet, film_set
from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia
from kinoloom.store.store import Store
from stand_in import until


@pytest.fixture
def films(tmp_path: Path, store: Store) -> Iterator[FilmSet]:
    settings = Settings(home=tmp_path / "home", device="cpu")
    with film_set(settings, store) as made:
        yield made


def test_a_chain_is_made_in_order_and_each_goes_on_from_the_one_before(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    job = films.render(film)
    assert films.rendered() == list(WORDS)

    clip = films.store.clips.get(str(job.clip_id))
    assert clip is not None
    assert (clip.task, clip.frames) == ("film", 32)
    assert films.films.get(film).clip_id == clip.id
    takes = films.store.films.takes(film)
    assert [(t.shot, t.number, t.seed, t.chosen) for t in takes] == [
        (f"shot-{n}", 1, 2 + n, True) for n in (1, 2, 3, 4)
    ]
    assert [t.seam for t in takes] == [None, 1.0, 1.0, 1.0]
    for before, after in pairwise(takes):
        made = films.store.clips.get(before.segments[-1]["clip"])
        assert made is not None
        (boundary,) = made.boundaries.values()
        picture = films.store.assets.path(boundary).read_text()
        handed = films.store.assets.path(after.upstream).read_text()
        assert handed.startswith(f"{picture} like ")  # its colours are those of the first frame


def test_shots_between_keyframes_are_handed_in_all_at_once(films: FilmSet) -> None:
    film = films.films.create(films.board("keyframe")).id
    films.child.before = lambda command: None
    job = films.films.render(film)

    def asked(name: str) -> int:
        children = films.store.films.jobs_of(job.id)
        return sum((child.request["frames"] == 1) == (name == "picture") for child in children)

    until(lambda: asked("picture") == 4)
    until(lambda: asked("shot") == 4)
    until(lambda: films.jobs.get(job.id).state == "succeeded")
    pictures = films.films.get(film).keyframes
    assert sorted(pictures) == [f"shot-{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("mode", "again"), [("keyframe", ["a cube"]), ("chaining", ["a cube", "a yellow ball"])]
)
def test_an_edit_makes_what_it_changes_and_nothing_else(
    films: FilmSet, mode: str, again: list[str]
) -> None:
    film = films.films.create(films.board(mode)).id
    first = films.render(film)
    before = len(films.rendered())

    films.films.update(film, films.board(mode, (*WORDS[:2], "a cube", WORDS[3])))
    films.render(film)
    assert films.rendered(before) == again

    films.films.update(film, films.board(mode))
    assert films.render(film).clip_id == first.clip_id
    assert films.rendered(before) == again


def test_a_film_that_is_finished_costs_no_render_and_no_joining(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    first = films.render(film)
    again = films.render(film)
    assert (again.clip_id, again.reused) == (first.clip_id, True)
    assert len(films.rendered()) == 4
    assert films.child.calls.count("stitch") == 1


def test_one_shot_that_fails_leaves_the_others_and_is_tried_again(films: FilmSet) -> None:
    film = films.films.create(films.board("keyframe")).id
    failing = iter([True])

    def fail(command: str) -> None:
        if command == "render" and len(films.rendered()) == 5 and next(failing, False):
            raise InvalidMedia("The picture was broken.")

    films.child.before = fail
    job = films.render(film, "failed")
    assert job.error is not None
    (name,) = job.error["details"]["shots"]
    assert name in job.error["message"]
    states = {shot["id"]: shot["state"] for shot in films.films.status(film).shots}
    assert sorted(states.values()) == ["done", "done", "done", "failed"]
    assert states[name] == "failed"

    count = len(films.rendered())
    films.jobs.retry(job.id)
    until(lambda: films.jobs.get(job.id).state == "succeeded")
    assert len(films.rendered()) == count + 1


def test_in_a_chain_what_follows_a_failure_waits(films: FilmSet) -> None:
    film = films.films.create(films.board()).id

    def fail(command: str) -> None:
        if command == "render" and len(films.rendered()) == 2:
            raise InvalidMedia("The picture was broken.")

    films.child.before = fail
    job = films.render(film, "failed")
    assert job.error is not None
    assert list(job.error["details"]["shots"]) == ["shot-3"]
    states = [shot["state"] for shot in films.films.status(film).shots]
    assert states == ["done", "done", "failed", "waiting"]


def test_a_seam_that_is_seen_is_taken_again_twice_and_the_best_is_kept(films: FilmSet) -> None:
    scores = {"seed 4": 0.1, "seed 7923": 0.3, "seed 15842": 0.2}
    films.child.seams = lambda after: next(
        (score for words, score in scores.items() if after.endswith(words)), 0.9
    )
    film = films.films.create(films.board()).id
    films.render(film)
    takes = films.store.films.takes(film, "shot-2")
    assert [(t.seed, t.seam, t.reason, t.chosen) for t in takes] == [
        (4, 0.1, "storyboard", False),
        (7923, 0.3, "seam", True),
        (15842, 0.2, "seam", False),
    ]
    count = len(films.rendered())
    assert count == 6
    films.render(film)  # it is settled
    assert len(films.rendered()) == count


def test_a_take_that_the_user_chose_stays_whatever_its_seam(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    films.child.seams = lambda after: 0.1 if WORDS[1] in after else 1.0
    films.render(film)
    films.films.choose(film, "shot-2", 1)
    # It goes on from another picture then, so that its seam is another one.
    films.films.retake(film, "shot-1", seed=77)
    films.render(film)
    takes = films.films.status(film).shots[1]["takes"]
    assert [take["number"] for take in takes if take["chosen"]] == [1]
    assert len(takes) == 3


def test_cancelling_a_film_stops_its_shots(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    films.child.open.clear()
    job = films.films.render(film)
    assert films.child.rendering.wait(60)
    films.jobs.cancel(job.id)
    until(lambda: films.jobs.get(job.id).state == "cancelled")
    until(lambda: {c.state for c in films.store.films.jobs_of(job.id)} == {"cancelled"})
    films.child.open.set()


def test_a_film_that_was_stopped_goes_on_where_it_was(films: FilmSet) -> None:
    film = films.films.create(films.board()).id

    def pause(command: str) -> None:
        if command == "render" and len(films.rendered()) == 2:
            films.child.open.clear()

    films.child.before = pause
    job = films.films.render(film)
    until(lambda: not films.child.open.is_set())
    films.jobs.hold(job.id)
    films.child.before = lambda _command: None
    films.child.open.set()
    films.jobs.release(job.id)
    until(lambda: films.jobs.get(job.id).state == "succeeded")
    assert films.rendered() == list(WORDS)


def test_a_long_shot_is_made_in_parts_that_join(films: FilmSet) -> None:
    board = films.board(words=("a red ball",))
    shot = board.shots[0].model_copy(update={"frames": 100})
    film = films.films.create(board.model_copy(update={"shots": (shot,)})).id
    clip = films.store.clips.get(str(films.render(film).clip_id))
    assert clip is not None
    assert clip.frames == 100
    (take,) = films.store.films.takes(film)
    assert [segment["asked"] for segment in take.segments] == [49, 49, 9]
    tasks = [films.store.clips.get(segment["clip"]) for segment in take.segments]
    assert [made.task for made in tasks if made is not None] == ["t2v", "i2v", "i2v"]
    assert [piece["skip"] for piece in clip.plan["cut"]["pieces"]] == [0, 1, 1]


def test_progress_tells_shots_and_money(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    job = films.render(film)
    told = [e.data for e in films.store.events.after(0, job_id=job.id) if e.type == "state"]
    assert [data["state"] for data in told] == ["held", "queued", "running", "succeeded"]
    status = films.films.status(film)
    assert (status.done, status.total, status.step) == (4, 4, "finished")
    assert Decimal(status.spent) == 0
