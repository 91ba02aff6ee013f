from __future__ import annotations

import hashlib
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.store import Store
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord

DATA = b"some picture" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "address"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "assets")
    return f"memory://{uuid.uuid4().hex}/assets"


@pytest.fixture
def store(tmp_path: Path, database_url: str | None, place: str) -> Iterator[Store]:
    """A store on each of the two databases, with each kind of place."""
    with Store.open(tmp_path / "home", database_url=database_url, assets=place) as opened:
        yield opened


def lies_there(place: str, digest: str = DIGEST) -> bool:
    fs, root = fsspec.url_to_fs(place)
    return bool(fs.exists(f"{root}/{digest[7:9]}/{digest[9:]}"))


def is_known(store: Store, digest: str = DIGEST) -> bool:
    try:
        return store.assets.size(digest) > 0
    except InvalidMedia:
        return False


def clip(**changes: Any) -> ClipRecord:
    facts: dict[str, Any] = {
        "path": Path("clip.mp4"),
        "plan_key": "key",
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "seed": 1,
        "width": 64,
        "height": 64,
        "frames": 9,
        "fps": 8.0,
        "format": "mp4",
        "request": {"prompt": "a cat"},
        "plan": {},
    }
    return ClipRecord(**facts | changes)


def test_what_nothing_refers_to_goes(store: Store, place: str) -> None:
    path = store.assets.put_bytes(DATA, "image").path
    assert store.assets.discard(DIGEST)
    assert not lies_there(place)
    assert not path.exists()
    assert not is_known(store)
    assert not store.assets.discard(DIGEST)
    assert store.assets.put_bytes(DATA, "poster").kind == "poster"
    store.assets.verify(DIGEST)


@pytest.mark.parametrize(
    "use",
    [
        {"poster": DIGEST},
        {"inputs": {"image": DIGEST}},
        {"takes": [{"seed": 1, "asset": DIGEST}]},
        {"asset": DIGEST},
    ],
    ids=lambda use: next(iter(use)),
)
def test_what_a_clip_needs_stays(store: Store, place: str, use: dict[str, Any]) -> None:
    store.assets.put_bytes(DATA, "image")
    record = clip(**use)
    store.clips.add(record)
    assert not store.assets.discard(DIGEST)
    store.assets.verify(DIGEST)
    store.clips.delete(record.id)
    assert store.assets.discard(DIGEST)
    assert not lies_there(place)


def test_what_a_job_needs_stays(store: Store, place: str) -> None:
    store.assets.put_bytes(DATA, "image")
    words = ("queue", "origin", "task", "model", "backend", "prompt")
    job, _ = store.jobs.add(JobRecord(request={}, **dict.fromkeys(words, "x")))
    assert store.jobs.keep_artefact(job.id, "frames", run=job.run, digest=DIGEST, data={})
    assert not store.assets.discard(DIGEST)
    assert lies_there(place)
    assert store.jobs.drop_artefacts(job.id) == [DIGEST]
    assert store.assets.discard(DIGEST)
    assert not lies_there(place)


def test_a_file_that_cannot_be_removed_is_still_known(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.assets.put_bytes(DATA, "image")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "rm_file", refuse)
    with pytest.raises(OutputFailed):
        store.assets.discard(DIGEST)
    monkeypatch.undo()
    assert is_known(store)
    store.assets.verify(DIGEST)


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_puts_the_same_meanwhile_has_it_afterwards(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The file is removed while the other waits, who has seen it ("before"), or not any more."""
    store.assets.put_bytes(DATA, "image")
    waited: list[bool] = []
    putter = threading.Thread(target=store.assets.put_bytes, args=(DATA, "image"))

    def meanwhile(remove: Callable[[str], None]) -> Callable[[str], None]:
        def run(digest: str) -> None:
            if when == "after":
                remove(digest)
            putter.start()
            putter.join(0.3)
            waited.append(putter.is_alive())
            if when == "before":
                remove(digest)

        return run

    monkeypatch.setattr(store.assets._place, "remove", meanwhile(store.assets._place.remove))
    assert store.assets.discard(DIGEST)
    putter.join()
    assert waited == [True]
    assert lies_there(place)
    store.assets.verify(DIGEST)
    assert is_known(store)


def test_a_discard_between_upload_and_record(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.assets.put_bytes(DATA, "image")
    writing, discarded = store._database.writing, []

    def discard_first() -> Any:
        if not discarded:
            discarded.append(True)
            assert store.assets.discard(DIGEST)
        return writing()

    monkeypatch.setattr(store._database, "writing", discard_first)
    store.assets.put_bytes(DATA, "image")
    assert lies_there(place)
    assert is_known(store)


def test_row_and_file_go_and_come_together(store: Store, place: str) -> None:
    """Several who put and discard the same few files, in any order."""
    contents = [f"content {n}".encode() for n in range(3)]
    digests = ["sha256:" + hashlib.sha256(data).hexdigest() for data in contents]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        try:
            for _ in range(25):
                number = choose.randrange(3)
                if choose.random() < 0.5:
                    store.assets.put_bytes(contents[number], "x")
                else:
                    store.assets.discard(digests[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for digest in digests:
        assert is_known(store, digest) == lies_there(place, digest)
