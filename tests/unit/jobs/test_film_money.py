"""What does a film set aside, and who makes a shot whose service does not?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.plain import PlainService, offer, write_card
from film_set import FilmSet, FilmStandIn, film_set
from kinoloom.config import Settings
from kinoloom.config_sections import BudgetSettings, FallbackSettings
from kinoloom.errors import BudgetExceeded, QuotaExceeded, Uncertain
from kinoloom.jobs import here, remote_take, worker
from kinoloom.jobs.costs import cost_report
from kinoloom.jobs.film_here import FilmHere
from kinoloom.jobs.film_segments import Children
from kinoloom.jobs.film_status import FilmStatus
from kinoloom.store.store import Store

D = Decimal
ONE = ("a red ball",)
Open = Callable[..., FilmSet]


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, PlainService]:
    monkeypatch.setattr(remote_take, "_FIRST_PAUSE", 0.0)
    made = {name: PlainService() for name in ("plain", "other", "gratis")}
    offer(monkeypatch, **made)
    return made


@pytest.fixture
def opened(tmp_path: Path, store: Store, services: dict[str, PlainService]) -> Iterator[Open]:
    """A function that opens a place for films of `plain-1`; `runs` starts its worker."""
    cards = tmp_path / "cards"
    cards.mkdir()
    for name, price in (("plain", {}), ("other", {}), ("gratis", {"price": "price: free"})):
        write_card(cards, name, **price)
    with ExitStack() as stack:

        def opening(*, runs: bool = False, **budgets: str) -> FilmSet:
            settings = Settings(
                home=tmp_path / "home",
                models=cards,
                device="cpu",
                budgets=BudgetSettings(**{name: D(amount) for name, amount in budgets.items()}),
                fallback=FallbackSettings(chain=("plain", "other", "gratis")),
            )
            if runs:
                return stack.enter_context(film_set(settings, store))
            made = FilmSet(settings, store)
            stack.callback(made.jobs.close)
            return made

        yield opening


def begun(films: FilmSet, **board: Any) -> str:
    """A film of one shot, which costs half a dollar."""
    return films.films.create(films.board(**{"words": ONE, "model": "plain-1"} | board)).id


def made_by(films: FilmSet, clip_id: str | None) -> str:
    clip = films.store.clips.get(str(clip_id))
    assert clip is not None
    return clip.backend


def test_a_film_that_begins_has_its_money(opened: Open) -> None:
    films = opened(day="0.8")
    first, second = begun(films), begun(films)
    job = films.films.render(first)
    with pytest.raises(BudgetExceeded):
        films.films.render(second)
    assert films.films.get(second).job_id is None
    status = films.films.status(first)
    assert (status.spent, status.reserved) == ("0", "0.5")
    report = cost_report(films.settings, films.store, "film")
    assert [(row["id"], row["reserved"]) for row in report["rows"]] == [(first, "0.5")]
    assert [(b["name"], b["reserved"], b["left"]) for b in report["budgets"]] == [
        ("day", "0.5", "0.3")
    ]
    films.jobs.cancel(job.id)
    assert films.films.status(first).reserved == "0"
    films.films.render(second)


def test_takes_that_were_asked_for_are_in_the_plan(opened: Open) -> None:
    films = opened(film="1.4")
    film = begun(films)
    films.films.retake(film, "shot-1", candidates=2)
    plan = films.films.plan(films.board(words=ONE, model="plain-1"), film_id=film)
    assert (plan.clips, plan.known, plan.shots[0].takes) == (2, D(1), 1)
    films.films.retake(film, "shot-1")
    with pytest.raises(BudgetExceeded, match="more than its budget"):
        films.films.render(film)


@pytest.mark.parametrize("policy", ["wait", "fail"])
def test_money_stays_with_a_film_that_waits(
    opened: Open, services: dict[str, PlainService], policy: str
) -> None:
    films = opened(runs=True, day="0.5")
    services["plain"].answers.append(QuotaExceeded("No credit."))
    film = begun(films, on_failure=policy)
    films.render(film, "held" if policy == "wait" else "failed")
    assert films.films.status(film).reserved == ("0.5" if policy == "wait" else "0")
    assert services["gratis"].orders == {}
    job = films.render(film)
    assert made_by(films, films.films.status(film).shots[0]["clips"][0]) == "plain"
    assert job.cost is None  # its clip's job has paid
    status = films.films.status(film)
    assert (status.spent, status.reserved) == ("0.5", "0")


def test_another_backend_makes_the_shot_that_says_so(
    opened: Open, services: dict[str, PlainService]
) -> None:
    films = opened(runs=True)
    services["plain"].answers.append(QuotaExceeded("No credit."))
    film = begun(films, on_failure="fallback", budget=D(2))
    plan = films.films.plan(films.board(words=ONE, model="plain-1", on_failure="fallback"))
    assert plan.shots[0].fallbacks == ("gratis-1 on gratis",)  # nothing was said of money here
    films.render(film)
    (clip,) = films.films.status(film).shots[0]["clips"]
    assert made_by(films, clip) == "other"
    assert films.films.status(film).spent == "0.5"
    count = len(services["other"].orders)
    films.render(film)  # it stays
    assert (len(services["other"].orders), len(services["plain"].orders)) == (count, 0)


def test_a_model_that_makes_other_frames_is_none_to_fall_back_to(
    opened: Open, services: dict[str, PlainService], tmp_path: Path
) -> None:
    films = opened(runs=True)
    card = tmp_path / "cards" / "gratis.yaml"
    other = card.read_text().replace("multiple: 12, offset: 0, minimum: 12", "multiple: 16")
    card.write_text(
        other.replace("maximum: 48, default: 12", "minimum: 16, maximum: 48, default: 16")
    )
    services["plain"].answers.append(QuotaExceeded("No credit."))
    film = begun(films, on_failure="fallback")
    plan = films.films.plan(films.board(words=ONE, model="plain-1", on_failure="fallback"))
    assert plan.shots[0].fallbacks == ()
    assert any("shot-1" in warning for warning in plan.warnings)
    films.render(film, "held")
    assert services["gratis"].orders == {}


def test_an_uncertain_order_waits_whatever_the_shot_says(
    opened: Open, services: dict[str, PlainService]
) -> None:
    films = opened(runs=True, day="1")
    services["plain"].answers.append(("accepted", Uncertain("Who knows?")))
    services["plain"].findable = False
    film = begun(films, on_failure="fail")
    job = films.render(film, "held")
    assert "kinoloom jobs resolve" in " ".join((job.error or {})["hints"])
    assert films.films.status(film).reserved == "0.5"
    (child,) = films.store.films.jobs_of(job.id)
    films.jobs.resolve(child.id, remote_id="remote-1")
    films.render(film)
    assert services["plain"].most_paid == 1
    assert len(services["plain"].orders) == 1


class Watch:
    """Sees a film go on, and is not interested."""

    def note(self, text: str) -> None: ...

    def film(self, status: FilmStatus) -> None: ...


def test_a_command_goes_on_with_an_order_that_is_resolved_meanwhile(
    opened: Open, services: dict[str, PlainService], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (here, worker):
        monkeypatch.setattr(module, "RenderProcess", lambda _settings, **_: FilmStandIn())
    films, look = opened(day="1"), Children.look
    services["plain"].answers.append(("accepted", Uncertain("Who knows?")))
    services["plain"].findable = False
    resolved = []

    def looked(children: Children) -> None:
        held = [child for child in films.jobs.list(states=["held"]) if child.error is not None]
        resolved.extend(films.jobs.resolve(child.id, remote_id="remote-1") for child in held)
        look(children)  # only now the film sees it

    monkeypatch.setattr(Children, "look", looked)
    film = begun(films)
    with FilmHere(films.settings) as command:
        status = command.render(film, Watch())
    assert status.job is not None
    assert status.job.state == "succeeded", status.job.error
    assert len(resolved) == 1
    assert (services["plain"].most_paid, len(services["plain"].orders)) == (1, 1)
