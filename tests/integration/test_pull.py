from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hand_made import pipeline_files, tensors, write, write_card
from integration.fake_hub import FakeHub, sha256
from kinoloom import models
from kinoloom.config import load_settings
from kinoloom.errors import (
    DownloadFailed,
    KinoloomError,
    LicenceNotAccepted,
    ModelBroken,
    ModelNotFound,
    OutputFailed,
)
from kinoloom.store.store import Store
from kinoloom.weights.places import locate
from kinoloom.weights.pull import Progress, Pulled

REPO = "owner/clips"
SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        yield running


@pytest.fixture(autouse=True)
def place(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a card for a repository of the fake Hub, and an empty cache."""
    for name in [n for n in os.environ if n.startswith(("KINOLOOM_", "HF_", "HUGGINGFACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    # Its retries wait a second, and it hands over bytes in pieces of 10 MB.
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
    write_card(tmp_path / "home" / "cards", f"{{repo: {REPO}}}")
    return tmp_path


def pull(**options: Any) -> Pulled:
    return models.pull_model("made", load_settings(), **options)


def cached(place: Path, repo: str = REPO) -> Path:
    return place / "hf" / "hub" / f"models--{repo.replace('/', '--')}"


def refused(**options: Any) -> KinoloomError:
    with pytest.raises(KinoloomError) as caught:
        pull(**options)
    assert caught.value.hints
    return caught.value


def test_only_what_is_needed_arrives_whole(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    useless = {
        "README.md": b"words",
        "model.ckpt": b"x",
        "whole.safetensors": tensors({"a": (9,)}),
        "vae/diffusion_pytorch_model.bin": b"x",
        "vae/diffusion_pytorch_model.fp16.safetensors": tensors({"decoder": (50, 4)}),
        "vae_old/diffusion_pytorch_model.safetensors": tensors({"decoder": (50, 4)}),
        "pipeline.py": b"x",
        "../../out.json": b"{}",
    }
    commit = hub.repo(REPO, files | useless)
    seen: list[Progress] = []
    done = pull(on_progress=seen.append)
    folder = cached(place) / "snapshots" / commit
    here = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert here == files
    assert done.size == sum(map(len, files.values()))
    assert (done.files, done.pinned, done.newer) == (len(files), {REPO: commit}, {})
    assert seen[-1].done == seen[-1].total == done.size
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    located = locate(_card(), load_settings())
    assert (located.folder, located.revision) == (folder, commit)


def test_nothing_is_downloaded_twice(place: Path, hub: FakeHub) -> None:
    hub.repo(REPO, pipeline_files())
    pull()
    hub.asked.clear()
    assert (pull().size, pull().files) == (0, 0)
    assert not hub.got(".safetensors")
    assert not [a for a in hub.asked if a.path.startswith("cdn")]


def test_a_dropped_connection_goes_on_where_it_ended(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    commit = hub.repo(REPO, files)
    digest = sha256(files[SHARD])
    hub.drops[digest] = 200
    pull()
    assert [a.range for a in hub.got(digest)] == [None, "bytes=192-"]
    assert (cached(place) / "snapshots" / commit / SHARD).read_bytes() == files[SHARD]


def test_an_interrupted_download_is_kept_and_finished(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    hub.repo(REPO, files)
    digest = sha256(files[SHARD])

    told: list[int] = []

    def stop(progress: Progress) -> None:
        told.extend([progress.done] if progress.file == SHARD else [])
        if len(told) == 4:  # its beginning, and three pieces of it
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(on_progress=stop)
    kept = (cached(place) / "blobs" / f"{digest}.incomplete").stat().st_size
    assert 0 < kept < len(files[SHARD])
    with pytest.raises(ModelBroken, match="not complete") as caught:
        locate(_card(), load_settings())
    assert caught.value.hints[0] == "kinoloom models pull made"
    hub.asked.clear()
    hub.repo(REPO, files | {"vae/config.json": b'{"new": 1}'})  # the Hub went on meanwhile
    done = pull()
    assert [a.range for a in hub.got(digest)] == [f"bytes={kept}-"]
    assert list(done.newer) == [REPO]
    assert locate(_card(), load_settings()).revision == done.pinned[REPO]


def test_control_c_in_a_real_process(place: Path, hub: FakeHub) -> None:
    """Ctrl-C while the server is silent: exit 130, the bytes stay, and the next run goes on."""
    files = pipeline_files()
    files["vae/diffusion_pytorch_model.safetensors"] = big = tensors({"decoder": (24_000_000,)})
    hub.repo(REPO, files)
    hub.stalls[sha256(big)] = 21_500_000
    command = [sys.executable, "-m", "kinoloom", "models", "pull", "made"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert hub.stalled.wait(120)
            partial = cached(place) / "blobs" / f"{sha256(big)}.incomplete"
            while not partial.exists() or partial.stat().st_size < 20_000_000:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "what has arrived stays" in err
    assert "Traceback" not in err
    hub.go_on.set()
    assert partial.stat().st_size >= 20_000_000
    hub.asked.clear()
    again = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert again.returncode == 0, again.stderr
    assert "licence Apache-2.0" in again.stderr
    (asked,) = hub.got(sha256(big))
    assert asked.range is not None
    assert int(asked.range[6:-1]) >= 20_000_000


def test_what_arrives_damaged_is_thrown_away(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    commit = hub.repo(REPO, files)
    digest = sha256(files[SHARD])
    hub.lies[digest] = files[SHARD][:-1] + b"!"
    error = refused()
    assert isinstance(error, DownloadFailed)
    assert SHARD in error.message
    assert not (cached(place) / "snapshots" / commit / SHARD).exists()
    assert not list((cached(place) / "blobs").glob(f"{digest}*"))
    hub.lies[digest] = files[SHARD]
    pull()
    locate(_card(), load_settings())


def test_a_damaged_small_file(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    hub.repo(REPO, files)
    hub.lies["scheduler/scheduler_config.json"] = b'{"shift": 4}'  # as long as it should be
    assert "scheduler_config.json" in refused().message


def test_a_gated_repository(place: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repo(REPO, pipeline_files())
    hub.repos[REPO].gated = True
    error = refused()
    assert isinstance(error, LicenceNotAccepted)
    assert f"{hub.endpoint}/{REPO}" in error.hints[0]
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pull()
    assert {a.token for a in hub.asked if a.host == "localhost"} == {None}
    assert "hf_good" in {a.token for a in hub.asked}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, LicenceNotAccepted), (403, LicenceNotAccepted), (500, DownloadFailed)],
)
def test_the_token_is_in_no_error(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[KinoloomError]
) -> None:
    hub.repo(REPO, pipeline_files())
    hub.status = status
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    error: BaseException | None = refused()
    assert isinstance(error, kind)
    assert "hf_good" not in json.dumps(error.as_dict())
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_repository_that_is_gone(hub: FakeHub) -> None:
    error = refused()
    assert isinstance(error, ModelNotFound)
    assert "renamed" in error.cause


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused()
    assert isinstance(error, DownloadFailed)
    assert "127.0.0.1:9" in error.cause


def test_a_full_disk(place: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repo(REPO, pipeline_files())
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    error = refused()
    assert isinstance(error, OutputFailed)
    assert "are needed" in error.cause
    assert not cached(place).exists()


def test_a_repository_of_pickles(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    del files["vae/diffusion_pytorch_model.safetensors"]
    hub.repo(REPO, files | {"vae/diffusion_pytorch_model.bin": b"x"})
    error = refused()
    assert isinstance(error, ModelBroken)
    assert "never opened" in error.cause
    assert not cached(place).exists()


@pytest.mark.parametrize(
    "index",
    [b"[]", b"{", b'{"_class_name": "A"}', b'{"../x": ["diffusers", "A"]}', b'{"a": ["b"]}'],
)
def test_a_hostile_index(place: Path, hub: FakeHub, index: bytes) -> None:
    hub.repo(REPO, pipeline_files() | {"model_index.json": index})
    assert isinstance(refused(), ModelBroken)
    assert not cached(place).exists()


def test_the_first_revision_is_pinned_and_a_newer_one_offered(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    first = hub.repo(REPO, files)
    pull()
    second = hub.repo(REPO, files | {"vae/config.json": b'{"new": true}'})
    offered = pull()
    assert (offered.size, offered.pinned, offered.newer) == (0, {REPO: first}, {REPO: second})
    assert locate(_card(), load_settings()).revision == first
    found = models.check_model("made", load_settings())
    assert (found.pinned, found.newer) == ({REPO: first}, {REPO: second})
    assert any("--update" in note for note in found.notes)
    hub.asked.clear()
    taken = pull(update=True)
    assert (taken.pinned, taken.newer) == ({REPO: second}, {})
    assert not [a for a in hub.asked if a.path.startswith("cdn")]  # the weights are the same
    assert locate(_card(), load_settings()).revision == second


def test_what_another_program_downloaded_is_used_and_pinned(place: Path, hub: FakeHub) -> None:
    old = hub.repo(REPO, pipeline_files())
    write(cached(place) / "snapshots" / old, pipeline_files())
    new = hub.repo(REPO, pipeline_files() | {"vae/config.json": b'{"new": true}'})
    done = pull()
    assert (done.size, done.pinned, done.newer) == (0, {REPO: old}, {REPO: new})


def test_a_revision_that_is_no_longer_there(place: Path, hub: FakeHub) -> None:
    hub.repo(REPO, pipeline_files())
    with Store.open(place / "home") as store:
        store.models.pin(REPO, "0" * 40)
    assert refused().hints == ("Take the newest one: kinoloom models pull made --update",)
    pull(update=True)


def test_a_licence_with_a_territory_has_to_be_accepted(place: Path, hub: FakeHub) -> None:
    hub.repo(REPO, pipeline_files())
    card = place / "home" / "cards" / "made.yaml"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("licence: {", 'licence: {territory: "not in Utopia", '), "utf-8")
    error = refused()
    assert isinstance(error, LicenceNotAccepted)
    assert "Utopia" in error.message
    assert "kinoloom models pull made --accept-licence" in error.hints[0]
    assert hub.asked == []
    pull(accept_licence=True)
    pull()  # once is enough
    with Store.open(place / "home") as store:
        assert store.models.accepted("made", "Apache-2.0") is not None
        assert store.models.accepted("made", "another") is None


def test_parts_come_from_their_own_repositories(place: Path, hub: FakeHub) -> None:
    files = pipeline_files()
    vae = {n.removeprefix("vae/"): c for n, c in files.items() if n.startswith("vae/")}
    hub.repo(REPO, files)
    hub.repo("owner/vae", {f"new/{n}": c for n, c in vae.items()} | {"other.json": b"{}"})
    hub.repo("owner/extra", {"a.safetensors": tensors({"x": (3,)}), "b.safetensors": b""})
    write_card(
        place / "home" / "cards",
        f"{{repo: {REPO}, parts: {{vae: {{repo: owner/vae, subfolder: new}},"
        " extra: {repo: owner/extra, file: a.safetensors}}}",
    )
    done = pull()
    located = locate(_card(), load_settings())
    assert set(done.pinned) == {REPO, "owner/vae", "owner/extra"}
    assert located.folder is not None
    assert not (located.folder / "vae").exists()
    assert (located.parts["vae"] / "config.json").is_file()
    assert located.parts["extra"].name == "a.safetensors"
    assert not hub.got("b.safetensors")


def test_a_repository_is_added_pulled_and_removed(place: Path, hub: FakeHub) -> None:
    hub.repo(REPO, pipeline_files())
    done = models.add_model(REPO, load_settings(), model="again")
    assert done.tasks
    assert models.check_model("again", load_settings()).hints == ("kinoloom models pull again",)
    models.pull_model("again", load_settings())
    assert models.check_model("again", load_settings()).ready
    models.remove_model("again", load_settings(), yes=True)
    assert cached(place).is_dir()  # a user's card goes, files stay


def _card() -> Any:
    from kinoloom.catalog.loader import Catalog

    return Catalog.load(load_settings().models).get("made")
