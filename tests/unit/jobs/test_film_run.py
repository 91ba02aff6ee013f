from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from film_set import WORDS, FilmSet, film_set
from kinoloom.config import Settings
from kinoloom.errors import Conflict, InvalidMedia
from kinoloom.film.board import Transition
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


@pytest.mark.parametrize(("policy", "state"), [("fail", "failed"), ("wait", "held")])
def test_one_shot_that_fails_leaves_the_others_and_is_tried_again(
    films: FilmSet, policy: str, state: str
) -> None:
    film = films.films.create(films.board("keyframe", on_failure=policy)).id
    failing = iter([True])

    def fail(command: str) -> None:
        if command == "render" and len(films.rendered()) == 5 and next(failing, False):
            raise InvalidMedia("The picture was broken.")

    films.child.before = fail
    job = films.render(film, state)
    assert job.error is not None
    (name,) = job.error["details"]["shots"]
    assert name in job.error["message"]
    states = {shot["id"]: shot["state"] for shot in films.films.status(film).shots}
    assert sorted(states.values()) == ["done", "done", "done", "failed"]
    assert states[name] == "failed"

    count = len(films.rendered())
    (films.jobs.retry if policy == "fail" else films.jobs.release)(job.id)
    until(lambda: films.jobs.get(job.id).state == "succeeded")
    assert len(films.rendered()) == count + 1


def test_in_a_chain_what_follows_a_failure_waits(films: FilmSet) -> None:
    film = films.films.create(films.board()).id

    def fail(command: str) -> None:
        if command == "render" and len(films.rendered()) == 2:
            raise InvalidMedia("The picture was broken.")

    films.child.before = fail
    job = films.render(film, "held")
    assert job.error is not None
    assert list(job.error["details"]["shots"]) == ["shot-3"]
    status = films.films.status(film)
    assert [shot["state"] for shot in status.shots] == ["done", "done", "failed", "waiting"]
    assert status.step == "waits for you"
    assert films.films.plan(films.board(), film_id=film).clips == 2
    told = [e.type for e in films.store.events.after(0, job_id=job.id)]
    assert told.count("error") == 1


def test_a_film_that_waits_can_be_edited_and_goes_on(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    films.child.before = _broken(films, 2)
    waiting = films.render(film, "held")
    with pytest.raises(Conflict, match="waits for you"):
        films.films.delete(film)
    films.child.before = lambda _command: None
    count = len(films.rendered())
    films.films.retake(film, "shot-2", seed=99)
    films.films.choose(film, "shot-2", 1)
    films.films.update(film, films.board(words=(*WORDS[:2], "a cube", WORDS[3])))
    job = films.render(film)
    assert (job.id, job.run > waiting.run) == (waiting.id, True)
    # The take that was asked for is made too.
    assert sorted(films.rendered(count)) == sorted([WORDS[1], "a cube", WORDS[3]])


def test_a_film_that_waits_and_is_released_has_its_new_words(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    films.child.before = _broken(films, 3)
    waiting = films.render(film, "held")
    films.child.before = lambda _command: None
    films.films.update(film, films.board(words=(*WORDS[:3], "a cube")))
    count = len(films.rendered())
    films.jobs.release(waiting.id)
    until(lambda: films.jobs.get(waiting.id).state == "succeeded")
    assert films.rendered(count) == ["a cube"]


def _broken(films: FilmSet, number: int) -> Callable[[str], None]:
    """Lets every render fail that is begun after so many."""

    def fail(command: str) -> None:
        if command == "render" and len(films.rendered()) == number:
            raise InvalidMedia("The picture was broken.")

    return fail


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
    chains(films, True)
    board = films.board(words=("a red ball",))
    shot = board.shots[0].model_copy(update={"frames": 100})
    film = films.films.create(board.model_copy(update={"shots": (shot,)})).id
    clip = films.store.clips.get(str(films.render(film).clip_id))
    assert clip is not None
    assert clip.frames == 100
    (take,) = films.store.films.takes(film)
    assert [segment["asked"] for segment in take.segments] == [49, 49, 25]
    tasks = [films.store.clips.get(segment["clip"]) for segment in take.segments]
    assert [made.task for made in tasks if made is not None] == ["t2v", "extend", "extend"]
    assert [piece["skip"] for piece in clip.plan["cut"]["pieces"]] == [0, 9, 9]


def test_progress_tells_shots_and_money(films: FilmSet) -> None:
    film = films.films.create(films.board()).id
    job = films.render(film)
    told = [e.data for e in films.store.events.after(0, job_id=job.id) if e.type == "state"]
    assert [data["state"] for data in told] == ["queued", "running", "succeeded"]
    status = films.films.status(film)
    assert (status.done, status.total, status.step) == (4, 4, "finished")
    assert Decimal(status.spent) == 0


def chains(films: FilmSet, value: bool) -> None:
    """Have spark's card say whether a film goes on from several frames."""
    packaged = resources.files("kinoloom") / "catalog" / "cards" / "spark.yaml"
    card = yaml.safe_load(packaged.read_text())
    card["extend"] |= {"chains": value}
    films.settings.models.mkdir(parents=True, exist_ok=True)
    (films.settings.models / "spark.yaml").write_text(yaml.safe_dump(card))


def long(films: FilmSet, **more: Any) -> Any:
    """Shots of which the film shows enough for several frames of context."""
    board = films.board(words=WORDS[:3], **more)
    shots = [shot.model_copy(update={"frames": 20}) for shot in board.shots]
    return board.model_copy(update={"shots": tuple(shots)})


def test_a_chain_goes_on_from_the_last_frames_where_the_model_takes_several(
    films: FilmSet,
) -> None:
    chains(films, True)
    film = films.films.create(long(films)).id
    clip = films.store.clips.get(str(films.render(film).clip_id))
    assert clip is not None
    assert clip.frames == 60
    assert [(p["skip"], p["frames"]) for p in clip.plan["cut"]["pieces"]] == [
        (0, 20),
        (9, 20),
        (9, 20),
    ]
    takes = films.store.films.takes(film)
    made = [films.store.clips.get(take.segments[0]["clip"]) for take in takes]
    assert [(m.task, m.frames) for m in made if m] == [("t2v", 25), ("extend", 33), ("extend", 33)]
    for before, after, shown in ((0, 1, 20), (1, 2, 29)):
        earlier, later = made[before], made[after]
        assert earlier is not None
        assert later is not None
        assert list(earlier.boundaries) == [f"{shown}:9"]
        # All nine with the colours of the film's first frame, and they are what was asked for.
        assert later.inputs == {"video": takes[after].upstream}
        handed = films.store.assets.path(takes[after].upstream).read_text()
        assert handed.startswith(f"9 frames to {shown} of ")
        assert " like frame 1 of " in handed


def test_an_edit_of_how_a_shot_follows_leaves_the_one_before_it(films: FilmSet) -> None:
    chains(films, True)
    board = long(films)
    film = films.films.create(board).id
    films.render(film)
    before = len(films.rendered())
    fade = Transition(kind="crossfade", duration=0.5)
    fading = board.shots[1].model_copy(update={"transition": fade})
    films.films.update(
        film, board.model_copy(update={"shots": (board.shots[0], fading, board.shots[2])})
    )
    films.render(film)
    assert films.rendered(before) == list(WORDS[1:3])
    # The one picture is the last of the nine frames that were kept.
    take = films.store.films.takes(film, "shot-2")[0]
    picture = films.store.assets.path(take.upstream).read_text()
    assert picture.startswith("frame 9 of 9 frames to 20 of ")

    films.films.update(film, board)
    films.render(film)
    assert films.rendered(before) == list(WORDS[1:3])


def test_a_film_that_was_chained_by_one_frame_is_made_anew_from_several(films: FilmSet) -> None:
    chains(films, False)
    film = films.films.create(long(films)).id
    films.render(film)
    clips = [films.store.clips.get(t.segments[0]["clip"]) for t in films.store.films.takes(film)]
    assert [list(clip.boundaries) for clip in clips if clip] == [["20"], ["21"], ["21"]]
    chains(films, True)
    films.render(film)
    # The first clip lacks the frames, so it is made once more, and then it has both.
    assert films.rendered(3) == list(WORDS[:3])
    takes = films.store.films.takes(film)
    clips = [films.store.clips.get(take.segments[0]["clip"]) for take in takes]
    assert [clip.task for clip in clips if clip] == ["t2v", "extend", "extend"]
    count = len(films.rendered())
    films.render(film)
    assert len(films.rendered()) == count
