"""How do programs and browsers use Kinoloom over the network?

`app.create_app` is the HTTP and websocket API, `serve.serve` runs it. Importing anything of this
package raises MissingPackage when the packages of the extra ``server`` are not installed.
"""

from __future__ import annotations

from importlib.util import find_spec

from kinoloom.errors import MissingPackage

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "httpx", "prometheus_client", "websockets")

if missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise MissingPackage(
        "The server needs packages that are not installed.",
        cause=f"There is no {', '.join(missing)} in this Python.",
        hints=["pip install 'kinoloom[server]'"],
    )
