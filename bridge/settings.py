"""Every setting of the bridge, read from the environment and `.env`: the only reader of either.

What a setting means and what it should be stands in its `Field`; `docs/configuration.md` is checked against it.
What a value is used for does not live here.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from bridge.models import Reaction, Reason, Vote
from bridge.slack.read import emoji_name

DEFAULT_REACTIONS = (
    "+1=upvote,thumbsup=upvote,heart=upvote,tada=upvote,100=upvote,white_check_mark=upvote,"
    "heavy_check_mark=upvote,raised_hands=upvote,-1=downvote,thumbsdown=downvote,x=downvote:incorrect,"
    "no_entry=downvote:incorrect,no_entry_sign=downvote:incorrect,shrug=downvote:irrelevant,"
    "question=downvote:unaddressed,grey_question=downvote:unaddressed"
)

ENV_FILE = Path(".env")
OWN_PREFIXES = ("BRIDGE_", "KAPA_")
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
OTLP_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OTLP_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
SECRETS = ("slack_bot_token", "slack_app_token", "slack_signing_secret", "kapa_api_key", "redis_url")


class SettingsError(Exception):
    """The settings cannot be used; `problems` has one sentence for each, naming the setting."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Role(StrEnum):
    """What a process of the bridge does: take events in, answer them, or both."""

    ALL = "all"
    INGRESS = "ingress"
    WORKER = "worker"


class Transport(StrEnum):
    """How Slack's events come in."""

    SOCKET = "socket"
    HTTP = "http"


def parse_reactions(text: str) -> dict[str, Vote]:
    """Read `emoji=upvote,emoji=downvote:incorrect,…` into the vote that each emoji stands for.

    The emoji are named as in the events that are read: one name for both of an emoji's, no colons, no skin tone.
    Raises ValueError with a sentence that names the part it could not read.
    """
    votes: dict[str, Vote] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        emoji, _, value = part.partition("=")
        kind, _, reason = value.strip().partition(":")
        name = emoji_name(emoji.strip()).partition("::")[0]
        is_reason_known = not reason or (kind == Reaction.DOWNVOTE and reason in set(Reason))
        if not name or kind not in set(Reaction) or not is_reason_known:
            raise ValueError(f"{part!r} is not emoji=upvote, emoji=downvote or emoji=downvote:reason")
        votes[name] = Vote(Reaction(kind), frozenset({Reason(reason)} if reason else ()))
    if not votes:
        raise ValueError("it names no emoji")
    return votes


def _split(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_whole = url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        # Its text would quote the URL, with the password in it.
        is_whole = False
    if not is_whole:
        raise ValueError("it is no URL")
    return parts


def _safe_url(url: str) -> str:
    parts = _parts(url)
    if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it has no host, or carries a user name, a query or a fragment")
    # What one parser takes for a host's name another reads differently.
    if not re.fullmatch(r"[\w.-]+|[0-9a-f:.]+", parts.hostname):
        raise ValueError("its host is no name and no address")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return url
    raise ValueError("it is not https, and its host is not this machine")


def _slack_api_url(url: str) -> str:
    if not url.endswith("/api/"):
        raise ValueError("it does not end in /api/")
    return _safe_url(url)


def _redis_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    found = re.fullmatch(r"(?:unix|rediss?(?:\+(sentinel|cluster))?)://([^/?#]*)([^?#]*)(.*)", text, re.DOTALL)
    if found is None:
        raise ValueError("its scheme is none of those")
    if text.startswith("unix:"):
        _parts(text)
        return url
    if not text.isprintable() or " " in text:
        raise ValueError("it is no URL")
    way, authority, path, query = found.groups()
    user, at, listed = authority.rpartition("@")
    hosts = listed.split(",")
    for host in hosts:
        _check_authority(f"{user}{at}{host}")
    if len(hosts) > 1 and way is None:
        raise ValueError("it names several hosts, which only those for Sentinel and Cluster can")
    _check_database(way, path, query)
    return url


def _check_database(way: str | None, path: str, query: str) -> None:
    if way == "sentinel":
        if not (place := re.fullmatch(r"/([^/]+)(?:/(.*))?", path)):
            raise ValueError("it names no service after the hosts, as in /mymaster/0")
        if not re.fullmatch(r"\d*", place[2] or "", re.ASCII):
            raise ValueError("its database, after the service, is no number")
    elif way == "cluster":
        if path.strip("/") or re.search(r"[?&]db=", query):
            raise ValueError("it has a database, which a Cluster does not")
    elif not re.fullmatch(r"\d*", path.strip("/"), re.ASCII):
        raise ValueError("its database, after the host, is no number")


def _check_authority(authority: str) -> None:
    try:
        parts = urlsplit(f"//{authority}")
    except ValueError:
        # Its text would quote the URL, with the password in it.
        raise ValueError("it is no URL") from None
    if not parts.hostname:
        raise ValueError("it has no host, or an empty one")
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("it has a port that is no number from 1 to 65535")


def _matches(pattern: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if not re.fullmatch(pattern, value.get_secret_value(), re.ASCII):
            raise ValueError("it is of another kind")
        return value

    return AfterValidator(check)


def _header_safe(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it has spaces, line breaks or characters that no key has")
    return value


def _reactions(text: str) -> str:
    parse_reactions(text)
    return text


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


Port = Annotated[int, Field(ge=0, le=65535)]
Channels = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[CGD][A-Z0-9]{2,}$")], ...], NoDecode, BeforeValidator(_split)
]
KapaId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")]


class Settings(BaseSettings):
    """The settings, validated. The environment variable of a field is its name in capitals.

    `description` says what a setting is for and `json_schema_extra["should"]` what it should be.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        frozen=True,
        env_file_encoding="utf-8",
    )

    slack_bot_token: Annotated[SecretStr, _matches(r"xoxb-[\w-]+")] | None = Field(
        None,
        description="Token of the app's bot user. One deployment serves one workspace.",
        json_schema_extra={"should": "the Bot User OAuth Token, which begins with xoxb-"},
    )
    slack_app_token: Annotated[SecretStr, _matches(r"xapp-[\w-]+")] | None = Field(
        None,
        description="App-level token for Socket Mode. This or `SLACK_SIGNING_SECRET` is required.",
        json_schema_extra={"should": "an app-level token with connections:write, which begins with xapp-"},
    )
    slack_signing_secret: Annotated[SecretStr, AfterValidator(_header_safe)] | None = Field(
        None,
        description="Proves that an HTTP request comes from Slack. This or `SLACK_APP_TOKEN` is required.",
        json_schema_extra={"should": "the app's Signing Secret, from its Basic Information page"},
    )
    slack_api_url: Annotated[str, AfterValidator(_slack_api_url)] = Field(
        "https://slack.com/api/",
        description="Slack's Web API, or a test double or gateway in its place.",
        json_schema_extra={"should": "an https address (http on this machine only) that ends in /api/"},
    )
    kapa_api_key: Annotated[SecretStr, AfterValidator(_header_safe)] | None = Field(
        None,
        description="Kapa API key of the project.",
        json_schema_extra={"should": "an API key made in the Kapa platform under API Keys"},
    )
    kapa_project_id: KapaId | None = Field(
        None,
        description="The Kapa project that answers.",
        json_schema_extra={"should": "the id of a project in the Kapa platform"},
    )
    kapa_integration_id: KapaId | None = Field(
        None,
        description="The dedicated integration that this bridge's usage is tracked under.",
        json_schema_extra={"should": "the id of an API integration of that project"},
    )
    kapa_api_url: Annotated[str, AfterValidator(_safe_url)] = Field(
        "https://api.kapa.ai",
        description="Kapa's API.",
        json_schema_extra={"should": "an https address (http on this machine only)"},
    )
    kapa_requests_per_minute: int = Field(
        20,
        ge=0,
        description="At most so many chat requests in any 60 seconds, over all workers together; `0`: no limit.",
        json_schema_extra={"should": "a whole number, 0 or more"},
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None,
        description="The Redis to use: one server, or the primary of a Sentinel service or a Cluster. Unset: an "
        "embedded Redis with its files in `BRIDGE_DATA_DIR`.",
        json_schema_extra={
            "should": "an address that begins with redis://, rediss://, unix://, redis+sentinel://, "
            "rediss+sentinel://, redis+cluster:// or rediss+cluster://"
        },
    )
    bridge_data_dir: Path = Field(
        Path(".bridge"),
        description="Where the embedded Redis keeps its files.",
        json_schema_extra={"should": "a folder that the bridge may write to"},
    )
    bridge_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where `POST /slack/events` listens (HTTP mode).",
        json_schema_extra={"should": "an address of this machine"},
    )
    bridge_port: Port = Field(
        3000,
        description="Port of `POST /slack/events` (HTTP mode); `0`: a free one, logged.",
        json_schema_extra={"should": "a port number from 0 to 65535"},
    )
    bridge_admin_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where `/healthz`, `/readyz`, `/metrics` and the status page listen.",
        json_schema_extra={"should": "an address of this machine"},
    )
    bridge_admin_port: Port = Field(
        9090,
        description="Port of the admin server; `0`: a free one, logged.",
        json_schema_extra={"should": "a port number from 0 to 65535"},
    )
    bridge_transport: Transport = Field(
        Transport.SOCKET,
        description="Which way events come in when both an app token and a signing secret are set.",
        json_schema_extra={"should": "socket or http"},
    )
    bridge_answer: Literal["all", "mention"] = Field(
        "all",
        description="`all`: every top-level message in a channel the bot is in; `mention`: only where it is "
        "mentioned. Replies in a thread with the bridge and direct messages are answered in both.",
        json_schema_extra={"should": "all or mention"},
    )
    bridge_channels: Channels = Field(
        (),
        description="Comma-separated channel ids; set: no other channel is answered (direct messages are).",
        json_schema_extra={"should": "channel ids like C0123ABCD, separated by commas"},
    )
    bridge_streaming: Literal["auto", "native", "edit", "off"] = Field(
        "auto",
        description="How an answer grows in Slack: `native` (Slack's own streaming), `edit` (posted once, then edited) "
        "or `off` (posted once, whole). `auto`: native, and edit for a day where Slack refuses it.",
        json_schema_extra={"should": "auto, native, edit or off"},
    )
    bridge_reactions: Annotated[str, AfterValidator(_reactions)] = Field(
        DEFAULT_REACTIONS,
        description="Which emoji count as which vote; replaces the default map.",
        json_schema_extra={
            "should": "emoji=upvote, emoji=downvote or emoji=downvote:reason, separated by "
            "commas; the reasons are incorrect, irrelevant and unaddressed"
        },
    )
    bridge_worker_concurrency: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Conversations answered at once by one worker.",
        json_schema_extra={"should": "a whole number from 1 to 10000"},
    )
    bridge_lease_seconds: float = Field(
        15,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="After this long without a sign of life a dead worker's work is taken over.",
        json_schema_extra={"should": "seconds, from 1 to 3600"},
    )
    bridge_drain_seconds: float = Field(
        25,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="On SIGTERM: how long what is in flight may finish; the rest is handed back at once.",
        json_schema_extra={"should": "seconds, from 0 to 3600"},
    )
    bridge_thread_ttl_days: float = Field(
        90,
        gt=0,
        le=3650,
        allow_inf_nan=False,
        description="How long a thread can be continued and an answer be voted on, after its last use.",
        json_schema_extra={"should": "days, more than 0 and at most 3650"},
    )
    bridge_messages: Annotated[Path, AfterValidator(_existing)] | None = Field(
        None,
        description="A TOML file that replaces sentences the bridge says.",
        json_schema_extra={"should": "the path of a TOML file"},
    )
    bridge_log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json` or `console`; `auto`: console on a terminal.",
        json_schema_extra={"should": "auto, json or console"},
    )
    bridge_log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="What is logged at least. Message texts appear at `debug` only.",
        json_schema_extra={"should": "debug, info, warning or error"},
    )

    @property
    def reactions(self) -> dict[str, Vote]:
        """The vote that each emoji stands for."""
        return parse_reactions(self.bridge_reactions)

    @property
    def transport(self) -> Transport:
        """The way events come in: the only one that is set up, else what `BRIDGE_TRANSPORT` says."""
        if self.slack_app_token and self.slack_signing_secret:
            return self.bridge_transport
        return Transport.SOCKET if self.slack_app_token else Transport.HTTP

    @property
    def thread_ttl_seconds(self) -> int:
        """`BRIDGE_THREAD_TTL_DAYS` in whole seconds."""
        return max(1, int(self.bridge_thread_ttl_days * 86_400))


def load(
    required: Iterable[str] = (),
    *,
    any_of: Iterable[str] = (),
    unused: str = "",
    overrides: Mapping[str, Any] | None = None,
    more: Callable[["Settings"], Iterable[str]] = lambda settings: (),
) -> Settings:
    """Read the settings from the environment and `.env`.

    `required` names fields that must be set and `any_of` fields of which one must be. Fields whose names begin as the
    pattern `unused` says are not read, and may be as they like; `overrides` win over both sources. `more` says what
    else is wrong, where it takes another module to know; what is broken already has its default there. Raises
    SettingsError with every problem at once.
    """
    fields = Settings.model_fields.items()
    given = {name: field.default for name, field in fields if unused and re.match(unused, name)} | dict(overrides or {})
    broken: dict[str, str] = {}
    try:
        settings = _read(given)
    except ValidationError as error:
        broken = _sentences(error)
        settings = _read({**given, **{name: Settings.model_fields[name].default for name in broken}})
    except UnicodeDecodeError:
        raise SettingsError([f"{ENV_FILE} should be a text file in UTF-8"]) from None
    except OSError as error:
        raise SettingsError([f"{ENV_FILE} cannot be read ({error.strerror}): it should be readable, or away"]) from None
    problems = [*broken.values(), *_missing(settings, set(required), tuple(any_of), set(broken)), *more(settings)]
    # Who names what is required is about to run the bridge.
    problems += _trace_problems(_otel()) if required else []
    if problems:
        raise SettingsError(sorted(problems))
    return settings


def unknown() -> dict[str, str | None]:
    """Read which names in the environment and `.env` look like settings and are none.

    Gives each with the nearest real one, None where none is near. Raises as `.env` does that cannot be read: `load`
    says so first, in a sentence.
    """
    in_file = DotEnvSettingsSource(Settings, env_file=ENV_FILE).env_vars
    return unknown_among({*EnvSettingsSource(Settings).env_vars, *in_file})


def unknown_among(names: Iterable[str]) -> dict[str, str | None]:
    """Find the names that begin like a setting's and are none, each with the nearest real one, if one is near."""
    known = [name.upper() for name in Settings.model_fields]
    found = sorted({name.upper() for name in names} - {*known})
    # Their common beginning alone makes names alike.
    nearest = {name: get_close_matches(name, known, n=1, cutoff=0.75) for name in found}
    return {name: next(iter(near), None) for name, near in nearest.items() if name.startswith(OWN_PREFIXES)}


def trace_exporters() -> tuple[str, ...]:
    """Say where traces are wanted by the standard variables: `otlp`, `console`, both, or nowhere. Raises SettingsError.

    All else that these variables say is for OpenTelemetry's SDK to read, from the environment alone: what `.env` has of
    them is put there. Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    otel = _otel()
    if problems := _trace_problems(otel):
        raise SettingsError(problems)
    exporters = _exporters(otel)
    if exporters:
        os.environ.update(otel)
    return exporters


def _otel() -> dict[str, str]:
    """Read the OTEL_ variables that are set, as uppercase names; an empty one counts as none."""
    in_file = DotEnvSettingsSource(Settings, env_file=ENV_FILE).env_vars.items()
    found = {name.upper(): value for name, value in in_file if value} | dict(os.environ)
    return {name: value for name, value in found.items() if name.startswith("OTEL_") and value}


def _exporters(otel: Mapping[str, str]) -> tuple[str, ...]:
    if otel.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = otel.get("OTEL_TRACES_EXPORTER", "otlp" if any(name in otel for name in OTLP_ENDPOINTS) else "none")
    return tuple(sorted({part.strip() for part in named.split(",")} - {"none", ""}))


def _trace_problems(otel: Mapping[str, str]) -> list[str]:
    exporters = _exporters(otel)
    problems = [
        f"OTEL_TRACES_EXPORTER: {name!r} is not built in; it should be otlp, console or none"
        for name in exporters
        if name not in {"otlp", "console"}
    ]
    if "otlp" not in exporters:
        return problems
    # Of two, the first is for traces alone, and counts.
    for name in [name for name in OTLP_ENDPOINTS if name in otel][:1]:
        if not re.fullmatch(r"https?://[^\s/?#]+(/\S*)?", otel[name]):
            problems.append(f"{name}: it should be an http or https address, such as http://localhost:4318")
    for name in [name for name in OTLP_PROTOCOLS if name in otel][:1]:
        if otel[name] != "http/protobuf":
            better = "it should be http/protobuf, which collectors take on port 4318"
            problems.append(f"{name}: {otel[name]!r} is not built in; {better}")
    for name in [name for name in OTLP_HEADERS if name in otel][:1]:
        # The SDK would quote in the log what it cannot read, and it may be a key.
        if not all(
            re.fullmatch(r"\s*([\w!#-'*+.^`|~-]+\s*=[ !#-:<-\[\]-~]*)?", part, re.A) for part in otel[name].split(",")
        ):
            problems.append(
                f"{name}: it should be name=value, more of them separated by commas, and values URL-encoded"
            )
    return problems


def should(name: str) -> str:
    """Say what the field `name` should be."""
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["should"]) if isinstance(extra, dict) else "set"


def _read(given: Mapping[str, Any]) -> Settings:
    return Settings(_env_file=ENV_FILE, **given)


def _sentences(error: ValidationError) -> dict[str, str]:
    sentences = {}
    for item in error.errors(include_input=False, include_url=False):
        name = str(item["loc"][0])
        why = item["msg"].removeprefix("Value error, ") + "; it " if item["type"] == "value_error" else ""
        sentences[name] = f"{name.upper()}: {why}should be {should(name)}"
    return sentences


def _missing(settings: Settings, required: set[str], any_of: tuple[str, ...], broken: set[str]) -> list[str]:
    lines = [
        f"{name.upper()} is not set: it should be {should(name)}"
        for name in required - broken
        if getattr(settings, name) is None
    ]
    if any_of and not broken.intersection(any_of) and not any(getattr(settings, name) for name in any_of):
        names = " or ".join(name.upper() for name in any_of)
        lines.append(f"{names} is not set: it should be {', or '.join(should(name) for name in any_of)}")
    return lines
