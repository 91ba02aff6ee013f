"""What may be set for each backend, for spending, for fallback: the sections of the settings.

Each description says what is allowed, in the words that errors and the sample file use; `examples`
are what the sample shows where there is no default. `variables` name those of the services' own
SDKs that count where a setting is left out.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

Prefer = Literal["quality", "speed", "cost"]


def _address(url: str) -> str:
    """The address of a server, without a slash at its end."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no address of a server")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address holds no password and no query")
    return url.rstrip("/")


def expanded(value: object) -> object:
    """A path with ``~`` expanded; text without any characters is no path."""
    if isinstance(value, str | Path):
        if not str(value).strip() or "\0" in str(value):
            raise ValueError("empty")
        return Path(value).expanduser()
    return value


def _one_or_more(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Address = Annotated[str, Field(max_length=2000), AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(_one_or_more)]
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
Place = Annotated[Path, BeforeValidator(expanded)]
Amount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]


class ConfigSection(BaseModel):
    """A part of the settings file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


class ComfyUISettings(ConfigSection):
    """ComfyUI servers."""

    servers: Addresses = Field(
        default=(),
        description="the addresses of ComfyUI servers, such as http://127.0.0.1:8188; the least"
        " busy one gets a job",
        examples=[["http://127.0.0.1:8188"]],
    )
    workflows: Place | None = Field(
        default=None,
        description="a folder of your own workflows, each a card (NAME.yaml) beside its file in"
        " API format",
        examples=["workflows"],
    )


class OpenAIModel(ConfigSection):
    """One model of a server that speaks /v1/videos."""

    model: str = Field(
        min_length=1,
        max_length=300,
        description="the model's name on that server",
        examples=["Wan-AI/Wan2.2-T2V-A14B-Diffusers"],
    )
    like: Name = Field(
        description="the model card whose sizes, lengths and tasks it shares (`kinoloom models"
        " list`)",
        examples=["wan-2.2-t2v-a14b"],
    )
    price: Literal["free"] | Amount | None = Field(
        default=None,
        description="free, or what a second of video costs in USD, such as 0.05; without it the"
        " price is unknown",
        examples=["free"],
    )


class OpenAIServer(ConfigSection):
    """A server that speaks /v1/videos: vLLM-Omni, SGLang, LiteLLM, another Kinoloom."""

    url: Address = Field(
        description="its address with the version, as in http://host:8000/v1; it holds no password",
        examples=["http://127.0.0.1:8000/v1"],
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="its key; without one OPENAI_API_KEY is NOT sent",
        examples=["${CLUSTER_API_KEY:-}"],
    )
    models: dict[Name, OpenAIModel] = Field(
        description="the names that you give its models, and what they are there",
        examples=["cluster-wan"],
    )


class RunwaySettings(ConfigSection):
    """Runway."""

    api_key: SecretStr | None = Field(
        default=None,
        description="its key; else RUNWAYML_API_SECRET counts",
        examples=["${RUNWAYML_API_SECRET:-}"],
        json_schema_extra={"variables": ["RUNWAYML_API_SECRET"]},
    )
    base_url: Address | None = Field(
        default=None,
        description="another address of its API, such as https://gateway.example",
        examples=["https://api.dev.runwayml.com"],
    )


class GoogleSettings(ConfigSection):
    """Google: Gemini Omni with an API key, Veo on Vertex AI with a project."""

    api_key: SecretStr | None = Field(
        default=None,
        description="a Gemini API key; else GOOGLE_API_KEY or GEMINI_API_KEY counts",
        examples=["${GEMINI_API_KEY:-}"],
        json_schema_extra={"variables": ["GOOGLE_API_KEY", "GEMINI_API_KEY"]},
    )
    base_url: Address | None = Field(
        default=None,
        description="another address of the Gemini API, such as https://gateway.example",
        examples=["https://generativelanguage.googleapis.com"],
    )
    project: str | None = Field(
        default=None,
        description="the Google Cloud project; else GOOGLE_CLOUD_PROJECT counts",
        examples=["${GOOGLE_CLOUD_PROJECT:-}"],
        json_schema_extra={"variables": ["GOOGLE_CLOUD_PROJECT"]},
    )
    locations: Names = Field(
        default=("us-central1",),
        description="the regions of Vertex AI to try, in this order",
    )
    credentials: Place | None = Field(
        default=None,
        description="the key file of a service account; else the machine's own credentials count",
        examples=["service-account.json"],
        json_schema_extra={"variables": ["GOOGLE_APPLICATION_CREDENTIALS"]},
    )
    bucket: str | None = Field(
        default=None,
        pattern=r"^gs://\S+$",
        description="where Vertex AI writes videos, gs://bucket/folder; else they come inline",
        examples=["gs://bucket/kinoloom"],
    )
    vertex_url: Address | None = Field(
        default=None,
        description="another address of Vertex AI, such as https://gateway.example",
        examples=["https://us-central1-aiplatform.googleapis.com"],
    )


class ReplicateSettings(ConfigSection):
    """Replicate."""

    api_key: SecretStr | None = Field(
        default=None,
        description="its token; else REPLICATE_API_TOKEN counts",
        examples=["${REPLICATE_API_TOKEN:-}"],
        json_schema_extra={"variables": ["REPLICATE_API_TOKEN"]},
    )
    base_url: Address | None = Field(
        default=None,
        description="another address of its API, such as https://gateway.example",
        examples=["https://api.replicate.com"],
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="what its webhooks are signed with (whsec_...); needs public_url",
        examples=["${REPLICATE_WEBHOOK_SECRET:-}"],
    )


class BackendsSettings(ConfigSection):
    """What can make clips beside this machine."""

    comfyui: ComfyUISettings = Field(default=ComfyUISettings(), description="ComfyUI servers")
    openai: dict[Name, OpenAIServer] = Field(
        default_factory=dict,
        description="servers that speak /v1/videos, by a name of yours",
        examples=["cluster"],
    )
    runway: RunwaySettings = Field(default=RunwaySettings(), description="Runway")
    google: GoogleSettings = Field(
        default=GoogleSettings(),
        description="Google: Gemini Omni with an API key, Veo on Vertex AI with a project",
    )
    replicate: ReplicateSettings = Field(default=ReplicateSettings(), description="Replicate")


class BudgetSettings(ConfigSection):
    """What may be spent; the currency is that of the services' prices."""

    currency: str = Field(
        default="USD",
        pattern=r"^[A-Z]{3}$",
        description="the currency of these amounts, three capital letters",
    )
    clip: Amount | None = Field(
        default=None,
        description="the most that one clip may cost, an amount such as 5 or 0.50",
        examples=["0.50"],
    )
    film: Amount | None = Field(
        default=None,
        description="the most that one film may cost, an amount such as 5 or 0.50",
        examples=["10"],
    )
    day: Amount | None = Field(
        default=None,
        description="the most that a day (UTC) may cost, an amount such as 5 or 0.50",
        examples=["5"],
    )
    month: Amount | None = Field(
        default=None,
        description="the most that a month (UTC) may cost, an amount such as 5 or 0.50",
        examples=["50"],
    )
    warn_at: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="the share of a budget at which it is warned of, above 0 and at most 1",
    )

    @property
    def any(self) -> bool:
        """Whether there is any budget at all, which is the consent to spend by fallback."""
        return any(x is not None for x in (self.clip, self.film, self.day, self.month))


class FallbackSettings(ConfigSection):
    """What happens when a backend fails."""

    enabled: bool = Field(
        default=True, description="true or false: whether another backend is tried at all"
    )
    chain: Names = Field(
        default=("local", "comfyui", "openai", "google", "replicate"),
        description="the backends to try, in this order; one that costs money only with a budget",
    )
    after_rejection: bool = Field(
        default=False,
        description="true or false: whether content that one service rejected is sent to another",
    )


class RewordSettings(ConfigSection):
    """Whether words that a service rejected are tried again in other words, at most twice."""

    enabled: bool = Field(default=False, description="true or false: whether other words are tried")
    url: Address | None = Field(
        default=None,
        description="an OpenAI-compatible chat endpoint (http://.../v1) that rewords; else rules"
        " do",
        examples=["http://127.0.0.1:11434/v1"],
    )
    model: str | None = Field(
        default=None, description="the chat model's name there", examples=["qwen3:8b"]
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="the key of that endpoint",
        examples=["${REWORD_API_KEY:-}"],
    )
