"""What does the Hugging Face Hub have, and how does one file of it get here whole?

huggingface_hub speaks with the Hub and owns the cache's layout. Only the way of a file into the
cache is Kinoloom's, since that package throws a partial file away: here it stays, the next
download goes on where it ended, and a file appears in the cache only after its hash was checked.
The user's token is read and sent by huggingface_hub alone and never to another host.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from kinoloom.errors import (
    DownloadFailed,
    KinoloomError,
    LicenceNotAccepted,
    MissingPackage,
    ModelNotFound,
    OutputFailed,
)
from kinoloom.weights import cache

OnBytes = Callable[[int], None]
"""Is told how many bytes of a file are here."""

_Result = TypeVar("_Result")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: bytes, and its SHA-256, or git's hash of what is small."""

    name: str
    size: int
    sha256: str | None
    git_hash: str | None


@dataclass(frozen=True)
class Remote:
    """A repository at one commit: its files by name."""

    repo: str
    commit: str
    files: dict[str, RemoteFile]


class Hub:
    """The Hugging Face Hub, or the one that HF_ENDPOINT names.

    Every method raises KinoloomError, with neither the token nor the request in it.
    """

    def __init__(self, model: str) -> None:
        """For what is done about `model`, which its errors name.

        Raises MissingPackage when huggingface_hub is not installed.
        """
        self._model = model
        try:
            # Most of what is needed of it is exported, but not in a way that type checkers accept.
            self._utils: Any = importlib.import_module("huggingface_hub.utils")
            import huggingface_hub
        except ImportError as error:
            raise MissingPackage(
                "Downloading models needs huggingface_hub.",
                hints=['pip install "kinoloom[local]"'],
            ) from error
        self._utils.disable_progress_bars()
        self._utils.logging.set_verbosity_error()
        endpoint = os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT
        self.endpoint = endpoint.rstrip("/")

    def page(self, repo: str) -> str:
        """The address of a repository's page."""
        return f"{self.endpoint}/{repo}"

    def look(self, repo: str, revision: str | None = None, *, timeout: float = 20.0) -> Remote:
        """The repository at a branch, tag or commit (None: ``main``), with its files."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, library_name="kinoloom")
        info = self._ask(
            repo,
            lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout),
        )
        if not isinstance(info.sha, str) or not cache.is_commit(info.sha):
            raise self._odd(repo, "it names no commit")
        files = {}
        for found in info.siblings or ():
            lfs = found.lfs
            if not isinstance(found.size, int) or found.size < 0:
                raise self._odd(repo, f"it tells no size of {found.rfilename!r}")
            sha256 = lfs.sha256 if lfs is not None else None
            files[found.rfilename] = RemoteFile(
                found.rfilename, found.size, sha256, found.blob_id if lfs is None else None
            )
        return Remote(repo, info.sha, files)

    def read(self, remote: Remote, file: RemoteFile, limit: int) -> bytes:
        """The content of a small file of at most `limit` bytes, not kept on this disk."""
        if file.size > limit:
            raise self._odd(remote.repo, f"{file.name} is larger than {limit} bytes")

        def get() -> bytes:
            headers = self._utils.build_hf_headers(library_name="kinoloom")
            url = self._url(remote.repo, remote.commit, file.name)
            response = self._utils.get_session().get(url, headers=headers)
            self._utils.hf_raise_for_status(response)
            return bytes(response.content)

        return self._ask(remote.repo, get)

    def download(self, remote: Remote, file: RemoteFile, on_bytes: OnBytes) -> Path:
        """The file in the cache, downloaded as far as it is not there yet, and checked.

        Interrupted, it leaves what has arrived for the next time.
        """
        there = cache.repo_folder(remote.repo) / "snapshots" / remote.commit / file.name
        if there.is_file() and there.stat().st_size == file.size:
            on_bytes(file.size)
            return there
        there.unlink(missing_ok=True)  # what is left of a link or of a damaged copy
        return self._ask(remote.repo, lambda: self._fetch(remote, file, on_bytes))

    def _fetch(self, remote: Remote, file: RemoteFile, on_bytes: OnBytes) -> Path:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download

        url = self._url(remote.repo, remote.commit, file.name)
        metadata = get_hf_file_metadata(url, endpoint=self.endpoint, library_name="kinoloom")
        tag = metadata.etag or ""
        if not tag.isalnum() or metadata.commit_hash != remote.commit:
            raise self._odd(remote.repo, f"it tells no hash or another commit of {file.name}")
        if metadata.size not in (None, file.size):
            raise self._odd(remote.repo, f"it tells two sizes of {file.name}")
        if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            raise DownloadFailed(
                f"{file.name} of {remote.repo} is too large to be downloaded by Kinoloom.",
                hints=[f"hf download {remote.repo} {file.name} --revision {remote.commit}"],
            )
        root = cache.cache_root()
        blob = cache.repo_folder(remote.repo) / "blobs" / tag
        lock = root / ".locks" / cache.repo_folder(remote.repo).name / f"{tag}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self._utils.WeakFileLock(lock):
            if not blob.is_file() or blob.stat().st_size != file.size:
                self._complete(remote.repo, url, metadata.location, file, blob, on_bytes)
        # Only now is the file shown in the snapshot's folder, by whoever owns the layout.
        shown = hf_hub_download(
            remote.repo,
            file.name,
            revision=remote.commit,
            cache_dir=root,
            endpoint=self.endpoint,
            library_name="kinoloom",
        )
        on_bytes(file.size)
        return Path(shown)

    def _complete(
        self,
        repo: str,
        url: str,
        location: str,
        file: RemoteFile,
        blob: Path,
        on_bytes: OnBytes,
    ) -> None:
        """Bring the rest of a file, check the whole, and give it its name in the cache."""
        from huggingface_hub.file_download import http_get

        headers = self._utils.build_hf_headers(library_name="kinoloom")
        if urlsplit(url).netloc != urlsplit(location).netloc:
            headers.pop("authorization", None)  # large files come from a host of their own
        partial = blob.with_name(f"{blob.name}.incomplete")
        with partial.open("ab") as stream:
            here = stream.tell()
            if here > file.size:
                stream.truncate(here := 0)
                stream.seek(0)
            watched = cast("BinaryIO", _Watched(stream, on_bytes))
            http_get(location, watched, resume_size=here, headers=headers, expected_size=file.size)
        if not _is_whole(partial, file):
            partial.unlink()
            raise DownloadFailed(
                f"{file.name} of {repo} arrived damaged and was thrown away.",
                cause="its content does not have the hash that the Hub tells",
                hints=["Run the same command again; the other files stay."],
            )
        partial.replace(blob)

    def _url(self, repo: str, commit: str, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repo, name, revision=commit, endpoint=self.endpoint)

    def _ask(self, repo: str, question: Callable[[], _Result]) -> _Result:
        """The answer, or what went wrong in our words.

        The library's exceptions hold the request, and so the token: none of them is passed on, not
        even as the cause of another.
        """
        failure: KinoloomError
        try:
            return question()
        except KinoloomError:
            raise
        except Exception as error:
            mapped = self._failure(repo, error)
            if mapped is None:
                raise
            failure = mapped
        raise failure

    def _failure(self, repo: str, error: Exception) -> KinoloomError | None:
        from huggingface_hub import errors

        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return LicenceNotAccepted(
                f"The Hub gives {repo} only to users who agreed to its terms.",
                cause=f"access was refused ({status})",
                hints=[
                    f"Agree on its page: {self.page(repo)}",
                    "Then let the command know who you are: set HF_TOKEN, or hf auth login",
                ],
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelNotFound(
                f"The revision of {repo} that is wanted is no longer there.",
                hints=[f"Take the newest one: kinoloom models pull {self._model} --update"],
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelNotFound(
                f"There is no repository {repo}, or it is private.",
                cause=f"the Hub answered {status}; it may have been renamed",
                hints=[
                    f"Look at its page: {self.page(repo)}",
                    "A private one needs HF_TOKEN (or hf auth login).",
                ],
            )
        if isinstance(error, errors.EntryNotFoundError) and status is not None:
            return ModelNotFound(
                f"{repo} lacks a file that its list names.",
                hints=[f"Take the newest revision: kinoloom models pull {self._model} --update"],
            )
        if status in (401, 403):
            return LicenceNotAccepted(
                f"The Hub refuses access to {repo}.",
                cause=f"it answered {status}",
                hints=[f"Look at its page: {self.page(repo)}", "Check the token in HF_TOKEN."],
            )
        if status is not None:
            return DownloadFailed(
                f"The Hub cannot give {repo} now.",
                cause=f"it answered {status}",
                hints=["Run the same command again later; what has arrived stays."],
            )
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return no_room(cache.cache_root())
        # httpx's base class, by whichever name it comes with this huggingface_hub.
        transport = errors.HfHubHTTPError.__bases__[0]
        named = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)
        if isinstance(error, (transport, *named)):
            return DownloadFailed(
                f"The Hub cannot be reached for {repo}.",
                cause=f"no answer from {urlsplit(self.endpoint).netloc} ({type(error).__name__})",
                hints=[
                    "Check the network, and that HF_HUB_OFFLINE is not set.",
                    "Run the same command again: what has arrived stays.",
                ],
            )
        if isinstance(error, OSError) and error.errno is not None:
            return OutputFailed(
                f"{cache.cache_root()} cannot be written.",
                cause=error.strerror or "",
                hints=["Set HF_HOME to a folder that you may write to."],
            )
        if isinstance(error, OSError | ValueError):
            return self._odd(repo, f"{type(error).__name__} while downloading")
        return None

    def _odd(self, repo: str, cause: str) -> DownloadFailed:
        return DownloadFailed(
            f"The Hub's answer about {repo} cannot be used.",
            cause=cause,
            hints=["Run the same command again later.", "Check HF_ENDPOINT where it is set."],
        )


def no_room(folder: Path) -> OutputFailed:
    """The error for a disk that is full."""
    return OutputFailed(
        f"The disk of {folder} is full.",
        hints=[
            "Free some space and run the same command again: what has arrived stays.",
            "Or set HF_HOME to a folder on another disk.",
        ],
    )


class _Watched:
    """A file that tells how much of it has been written."""

    def __init__(self, stream: BinaryIO, on_bytes: OnBytes) -> None:
        self._stream, self._on_bytes = stream, on_bytes

    def write(self, data: bytes) -> int:
        written = self._stream.write(data)
        self._on_bytes(self._stream.tell())
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the size and hash that the Hub tells."""
    if path.stat().st_size != file.size:
        return False
    if file.sha256 is None and file.git_hash is None:
        return True
    digest = hashlib.sha256()
    if file.sha256 is None:
        # git's hash of a file: what it is and its size come first.
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.git_hash)
