"""With which key, project and addresses is Google asked?

The settings come first, then the variables that Google's own tools read. The SDK is told everything
explicitly: left alone it retries creates, follows redirects with the key in hand and lets a
variable of the environment turn the Gemini API into Vertex AI.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinoloom.config_sections import GoogleSettings
from kinoloom.errors import Forbidden, MissingPackage, NetworkFailed, NotAuthenticated

if TYPE_CHECKING:  # importing the SDK takes a second
    from google.auth.credentials import Credentials
    from google.genai import Client

GEMINI = "https://generativelanguage.googleapis.com"
KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
PROJECT_VARIABLE = "GOOGLE_CLOUD_PROJECT"
CREDENTIALS_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_CONNECT_SECONDS = 15.0
_READ_SECONDS = 120.0
_PRODUCT = Path("/sys/class/dmi/id/product_name")

sent: ContextVar[list[str] | None] = ContextVar("sent", default=None)
"""Where a list is set, the method of each request is added to it just before it goes out."""


def installed() -> bool:
    """Whether Google's SDK is there; it is not imported."""
    try:
        return find_spec("google.genai") is not None
    except ModuleNotFoundError:
        return False


def missing_package() -> MissingPackage:
    """What to say where it is not."""
    return MissingPackage(
        "The backend google needs Google's SDK.",
        cause="The package google-genai is not installed.",
        hints=["pip install 'kinoloom[google]'"],
    )


class Access:
    """The settings of the backend, and the clients made from them. Threads may share it."""

    def __init__(self, settings: GoogleSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, ...], Client] = {}
        self._credentials: Credentials | None = None

    @property
    def key(self) -> str | None:
        """The key of the Gemini API."""
        own = self.settings.api_key
        if own is not None and own.get_secret_value().strip():
            return own.get_secret_value().strip()
        found = (os.environ.get(name, "").strip() for name in KEY_VARIABLES)
        return next((key for key in found if key), None)

    @property
    def gemini_url(self) -> str:
        """The address of the Gemini API, without a slash at its end."""
        named = self.settings.base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL", "")
        return (named or GEMINI).rstrip("/")

    @property
    def project(self) -> str | None:
        """The Google Cloud project."""
        return self.settings.project or os.environ.get(PROJECT_VARIABLE, "").strip() or None

    @property
    def vertex_url(self) -> str | None:
        """Another address of Vertex AI than Google's own."""
        named = self.settings.vertex_url or os.environ.get("GOOGLE_VERTEX_BASE_URL", "")
        return named.rstrip("/") or None

    def credentials_missing(self) -> str | None:
        """Why there can be no credentials for Vertex AI, found out without a call; None: there are.

        The file of the settings counts, else what Application Default Credentials take: the file
        that GOOGLE_APPLICATION_CREDENTIALS names, the one that ``gcloud auth application-default
        login`` writes, the account of the Google Cloud machine that this runs on.
        """
        own = self.settings.credentials
        if own is not None:
            return None if own.expanduser().is_file() else f"There is no key file at {own}."
        named = os.environ.get(CREDENTIALS_VARIABLE, "")
        if named:
            there = Path(named).expanduser().is_file()
            return None if there else f"{CREDENTIALS_VARIABLE} names a file that is not there."
        if _gcloud_file().is_file() or _on_google_cloud():
            return None
        return "There are no credentials for Google Cloud."

    def gemini(self) -> Client:
        """The SDK's client of the Gemini API. Raises NotAuthenticated without a key."""
        key = self.key
        if key is None:
            raise NotAuthenticated(
                "There is no key for the Gemini API.",
                hints=[f"Set {KEY_VARIABLES[1]}, or backends.google.api_key in kinoloom.yaml."],
            )
        return self._client(
            ("gemini", key, self.gemini_url),
            enterprise=False,
            api_key=key,
            base_url=self.gemini_url,
        )

    def vertex(self, location: str) -> Client:
        """The SDK's client of Vertex AI in a region, with credentials that are valid now.

        Raises Forbidden without a project, NotAuthenticated and NetworkFailed where no token can be
        had; all of it before anything is asked of Vertex AI.
        """
        project = self.project
        if project is None:
            raise Forbidden(
                "There is no Google Cloud project for Vertex AI.",
                hints=[f"Set {PROJECT_VARIABLE}, or backends.google.project in kinoloom.yaml."],
            )
        self.token()
        return self._client(
            ("vertex", project, location, self.vertex_url or ""),
            enterprise=True,
            project=project,
            location=location,
            credentials=self._credentials,
            base_url=self.vertex_url,
        )

    def token(self) -> str:
        """A token for Google Cloud, renewed where it ran out.

        Raises NotAuthenticated, and NetworkFailed where Google cannot be reached for one.
        """
        if not installed():
            raise missing_package()
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials = self._load()
                if not self._credentials.valid:
                    self._credentials.refresh(Request())  # type: ignore[no-untyped-call]
            except exceptions.TransportError as error:
                raise NetworkFailed(
                    "Google could not be reached for a token.", cause=type(error).__name__
                ) from None
            except (exceptions.GoogleAuthError, ValueError, OSError) as error:
                # Its words may quote the key file, so only what kind of error it is gets out.
                raise NotAuthenticated(
                    "Google Cloud does not accept the credentials.",
                    cause=_told(error),
                    hints=[
                        "Check backends.google.credentials, or sign in:"
                        " gcloud auth application-default login"
                    ],
                ) from None
            return str(self._credentials.token)

    def _load(self) -> Credentials:
        import google.auth
        from google.oauth2 import service_account

        own = self.settings.credentials
        if own is not None:
            found: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                str(own.expanduser()), scopes=[_SCOPE]
            )
            return found
        default: Credentials = google.auth.default(scopes=[_SCOPE])[0]
        return default

    def _client(self, known: tuple[str, ...], *, base_url: str | None, **who: Any) -> Client:
        """The client for `known`, made once."""
        with self._lock:
            if known not in self._clients:
                if not installed():
                    raise missing_package()
                import httpx2
                from google.genai import Client, types

                http = httpx2.Client(
                    timeout=_READ_SECONDS,
                    follow_redirects=False,  # a redirect would carry the key elsewhere
                    event_hooks={"request": [_before_sending]},
                )
                options = types.HttpOptions(
                    base_url=base_url,
                    timeout=int(_READ_SECONDS * 1000),
                    retry_options=types.HttpRetryOptions(attempts=1),
                    httpx_client=http,
                )
                self._clients[known] = Client(http_options=options, **who)
            return self._clients[known]


def _before_sending(request: Any) -> None:
    """Keep the wait for a connection short, whatever the wait for an answer; note the sending."""
    timeout = request.extensions.get("timeout")
    if timeout is not None:
        request.extensions["timeout"] = {**timeout, "connect": _CONNECT_SECONDS}
    noted = sent.get()
    if noted is not None:
        noted.append(str(request.method))


def _told(error: Exception) -> str:
    """What may be said of an error of google-auth: never more than the OAuth error's own name."""
    words = str(error)
    for known in ("invalid_grant", "invalid_client", "unauthorized_client", "access_denied"):
        if known in words:
            return f"{type(error).__name__}: {known}"
    return type(error).__name__


def _gcloud_file() -> Path:
    """Where gcloud keeps the user's Application Default Credentials."""
    folder = os.environ.get("CLOUDSDK_CONFIG", "")
    base = Path(folder) if folder else Path.home() / ".config" / "gcloud"
    return base / "application_default_credentials.json"


def _on_google_cloud() -> bool:
    """Whether this machine is one of Google's, which have an account of their own."""
    if os.environ.get("K_SERVICE") or os.environ.get("GCE_METADATA_HOST"):
        return True
    try:
        return _PRODUCT.read_text(encoding="ascii", errors="replace").startswith("Google")
    except OSError:
        return False
