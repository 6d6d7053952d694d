import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import app, settings
from bridge.models import Reaction, Reason, Vote
from bridge.settings import (
    SECRETS,
    Role,
    Settings,
    SettingsError,
    Transport,
    load,
    parse_reactions,
    should,
    unknown,
    unknown_among,
)

DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"
SECRET = "s3cr3t-Value-0123"
UPVOTE = Vote(Reaction.UPVOTE)
DOWNVOTE = Vote(Reaction.DOWNVOTE)


def problems(*required: str, any_of: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load(required, any_of=any_of)
    for problem in raised.value.problems:
        assert "\n" not in problem
    assert str(raised.value) == "\n".join(raised.value.problems)
    return raised.value.problems


def value(name: str) -> Any:
    found = getattr(load(), name)
    return found.get_secret_value() if hasattr(found, "get_secret_value") else found


DEFAULTS: dict[str, Any] = {
    "slack_bot_token": None,
    "slack_app_token": None,
    "slack_signing_secret": None,
    "slack_api_url": "https://slack.com/api/",
    "kapa_api_key": None,
    "kapa_project_id": None,
    "kapa_integration_id": None,
    "kapa_api_url": "https://api.kapa.ai",
    "kapa_requests_per_minute": 20,
    "redis_url": None,
    "bridge_data_dir": Path(".bridge"),
    "bridge_host": "127.0.0.1",
    "bridge_port": 3000,
    "bridge_admin_host": "127.0.0.1",
    "bridge_admin_port": 9090,
    "bridge_transport": "socket",
    "bridge_answer": "all",
    "bridge_channels": (),
    "bridge_streaming": "auto",
    "bridge_reactions": settings.DEFAULT_REACTIONS,
    "bridge_worker_concurrency": 32,
    "bridge_lease_seconds": 15,
    "bridge_drain_seconds": 25,
    "bridge_thread_ttl_days": 90,
    "bridge_messages": None,
    "bridge_log_format": "auto",
    "bridge_log_level": "info",
}
GOOD: list[tuple[str, str, Any]] = [
    ("slack_bot_token", "xoxb-1-A_b-c", "xoxb-1-A_b-c"),
    ("slack_app_token", "xapp-1-A-b", "xapp-1-A-b"),
    ("slack_signing_secret", "0123abcd", "0123abcd"),
    ("slack_api_url", "https://gateway.example.com/slack/api/", "https://gateway.example.com/slack/api/"),
    ("slack_api_url", "http://127.0.0.1:8080/api/", "http://127.0.0.1:8080/api/"),
    ("kapa_api_key", "k-0123", "k-0123"),
    ("kapa_project_id", "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000001"),
    ("kapa_integration_id", "abc_1", "abc_1"),
    ("kapa_api_url", "https://kapa.example.com/base", "https://kapa.example.com/base"),
    ("kapa_api_url", "http://127.0.0.1:8081", "http://127.0.0.1:8081"),
    ("kapa_api_url", "http://localhost:8081", "http://localhost:8081"),
    ("kapa_api_url", "http://[::1]:8081", "http://[::1]:8081"),
    ("kapa_api_url", "http://127.9.9.9", "http://127.9.9.9"),
    ("kapa_requests_per_minute", "0", 0),
    ("kapa_requests_per_minute", "1000", 1000),
    ("redis_url", "redis://:pw@redis:6379/0", "redis://:pw@redis:6379/0"),
    ("redis_url", "rediss://user:p%40w@redis/0?ssl_cert_reqs=none", "rediss://user:p%40w@redis/0?ssl_cert_reqs=none"),
    ("redis_url", "unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=0"),
    ("redis_url", "redis+sentinel://one:26379/mymaster", "redis+sentinel://one:26379/mymaster"),
    (
        "redis_url",
        "rediss+sentinel://u:p%2C%40@one,two:1,[::1]:26379/mymaster/0?sentinel_password=x",
        "rediss+sentinel://u:p%2C%40@one,two:1,[::1]:26379/mymaster/0?sentinel_password=x",
    ),
    ("redis_url", "redis+cluster://one", "redis+cluster://one"),
    (
        "redis_url",
        "rediss+cluster://:p@[::1]:6379,two/?ssl_cert_reqs=none",
        "rediss+cluster://:p@[::1]:6379,two/?ssl_cert_reqs=none",
    ),
    ("bridge_data_dir", "/var/lib/bridge", Path("/var/lib/bridge")),
    ("bridge_host", "0.0.0.0", "0.0.0.0"),  # noqa: S104 - nothing listens there
    ("bridge_port", "0", 0),
    ("bridge_port", "65535", 65535),
    ("bridge_admin_host", "::1", "::1"),
    ("bridge_admin_port", "0", 0),
    ("bridge_transport", "http", Transport.HTTP),
    ("bridge_answer", "mention", "mention"),
    ("bridge_channels", "C0123ABCD", ("C0123ABCD",)),
    ("bridge_channels", " C1AB , G2CD ,, ", ("C1AB", "G2CD")),
    ("bridge_streaming", "off", "off"),
    ("bridge_reactions", "kapa-yes=upvote", "kapa-yes=upvote"),
    ("bridge_worker_concurrency", "1", 1),
    ("bridge_lease_seconds", "1.5", 1.5),
    ("bridge_drain_seconds", "0", 0),
    ("bridge_thread_ttl_days", "0.5", 0.5),
    ("bridge_messages", __file__, Path(__file__)),
    ("bridge_log_format", "json", "json"),
    ("bridge_log_level", "debug", "debug"),
]
NO_HOST, NO_PORT = "it has no host, or an empty one", "it has a port that is no number from 1 to 65535"
NO_SERVICE = "it names no service after the hosts, as in /mymaster/0"
A_DATABASE = "it has a database, which a Cluster does not"
BAD_REDIS_URLS = {
    "localhost:6379": "its scheme is none of those",
    "http://localhost": "its scheme is none of those",
    "redis:localhost": "its scheme is none of those",
    "redis+unix:///redis.sock": "its scheme is none of those",
    "unix+cluster://one": "its scheme is none of those",
    "redis+sentinels://one/mymaster": "its scheme is none of those",
    "redis://": NO_HOST,
    "redis:///0": NO_HOST,
    "redis://:password@/0": NO_HOST,
    "redis+cluster://": NO_HOST,
    "redis+cluster://one,": NO_HOST,
    "redis+cluster://one,:6379": NO_HOST,
    "redis+sentinel:///mymaster": NO_HOST,
    "redis://localhost:port": NO_PORT,
    "redis://localhost:0": NO_PORT,
    "redis+cluster://one:6379,two:65536": NO_PORT,
    "redis+sentinel://one:26379,two:x/mymaster": NO_PORT,
    "redis://one/first": "its database, after the host, is no number",
    "rediss://one/0/1x": "its database, after the host, is no number",
    "redis://one,two": "it names several hosts, which only those for Sentinel and Cluster can",
    "redis://one:6379,two": "it names several hosts, which only those for Sentinel and Cluster can",
    "redis+sentinel://one": NO_SERVICE,
    "redis+sentinel://one/": NO_SERVICE,
    "redis+sentinel://one//0": NO_SERVICE,
    "redis+sentinel://one?db=0": NO_SERVICE,
    "redis+sentinel://one/mymaster/first": "its database, after the service, is no number",
    "redis+sentinel://one/mymaster/0/1": "its database, after the service, is no number",
    "redis+cluster://one/0": A_DATABASE,
    "redis+cluster://one/1": A_DATABASE,
    "redis+cluster://one?db=1": A_DATABASE,
    "redis://one two": "it is no URL",
    "redis+cluster://[one]": "it is no URL",
}
BAD: list[tuple[str, str]] = [
    ("slack_bot_token", "xoxp-1-user"),
    ("slack_bot_token", "xoxb-"),
    ("slack_bot_token", "xoxb-1 2"),
    ("slack_bot_token", " xoxb-1"),
    ("slack_app_token", "xoxb-1"),
    ("slack_signing_secret", "two words"),
    ("slack_signing_secret", "schlüssel"),
    ("slack_api_url", "https://slack.com/api"),
    ("slack_api_url", "http://slack.com/api/"),
    ("slack_api_url", "slack.com/api/"),
    ("kapa_api_key", "line\nbreak"),
    ("kapa_api_key", " "),
    ("kapa_project_id", "../other"),
    ("kapa_project_id", "x" * 101),
    ("kapa_integration_id", "a b"),
    ("kapa_api_url", "http://api.kapa.ai"),
    ("kapa_api_url", "http://127.0.0.1.example.com"),
    ("kapa_api_url", "http://localhost.example.com"),
    ("kapa_api_url", "http://2130706433"),
    ("kapa_api_url", "http://[::2]"),
    ("kapa_api_url", "https://user@api.kapa.ai"),
    ("kapa_api_url", "https://@api.kapa.ai"),
    ("kapa_api_url", "https://api.kapa.ai?x=1"),
    ("kapa_api_url", "https://api.kapa.ai#x"),
    ("kapa_api_url", "https://api.kapa.ai:port"),
    ("kapa_api_url", "https://api.kapa.ai:99999"),
    ("kapa_api_url", "https://api.\nkapa.ai"),
    ("kapa_api_url", "https://api kapa.ai"),
    ("kapa_api_url", "https://"),
    ("kapa_api_url", "https://[::1"),
    ("kapa_api_url", "ftp://127.0.0.1"),
    ("kapa_api_url", "file:///etc/passwd"),
    ("kapa_requests_per_minute", "-1"),
    ("kapa_requests_per_minute", "twenty"),
    ("kapa_requests_per_minute", "1.5"),
    *(("redis_url", url) for url in BAD_REDIS_URLS),
    ("bridge_port", "65536"),
    ("bridge_port", "-1"),
    ("bridge_port", "http"),
    ("bridge_admin_port", "65536"),
    ("bridge_transport", "smoke"),
    ("bridge_answer", "none"),
    ("bridge_channels", "general"),
    ("bridge_channels", "#general,C0123ABCD"),
    ("bridge_channels", "C0123ABCD;C2"),
    ("bridge_streaming", "yes"),
    ("bridge_reactions", "heart"),
    ("bridge_worker_concurrency", "0"),
    ("bridge_worker_concurrency", "10001"),
    ("bridge_lease_seconds", "0"),
    ("bridge_lease_seconds", "nan"),
    ("bridge_lease_seconds", "3601"),
    ("bridge_drain_seconds", "-1"),
    ("bridge_drain_seconds", "inf"),
    ("bridge_thread_ttl_days", "0"),
    ("bridge_thread_ttl_days", "3651"),
    ("bridge_messages", "/there/is/no/such/file.toml"),
    ("bridge_messages", "/"),
    ("bridge_log_format", "xml"),
    ("bridge_log_level", "verbose"),
]


def test_the_tables_here_have_every_setting() -> None:
    assert list(DEFAULTS) == list(Settings.model_fields)
    assert {name for name, _, _ in GOOD} == set(Settings.model_fields)
    # Any text is a folder or the name of a machine.
    assert set(Settings.model_fields) - {name for name, _ in BAD} == {
        "bridge_data_dir",
        "bridge_host",
        "bridge_admin_host",
    }


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    assert value(name) == DEFAULTS[name]


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_good_values(name: str, text: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), text)
    assert value(name) == expected


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_values_are_named_with_what_they_should_be(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), text)
    [problem] = problems()
    assert problem.startswith(f"{name.upper()}: ")
    assert problem.endswith(f"should be {should(name)}")


@pytest.mark.parametrize(("url", "why"), BAD_REDIS_URLS.items())
def test_a_redis_url_s_problem_is_told(url: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert problems() == (f"REDIS_URL: {why}; it should be {should('redis_url')}",)


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = dict(BAD)
    for name, text in bad.items():
        monkeypatch.setenv(name.upper(), text)
    found = problems("kapa_project_id", "slack_bot_token")
    assert [re.match(r"[A-Z_]+", problem)[0] for problem in found] == sorted(name.upper() for name in bad)  # type: ignore[index] # a mismatch fails the test


def test_bad_and_missing_settings_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_PORT", "x")
    found = problems("kapa_api_key", "slack_bot_token", any_of=("slack_app_token", "slack_signing_secret"))
    assert [problem.split(":")[0] for problem in found] == [
        "BRIDGE_PORT",
        "KAPA_API_KEY is not set",
        "SLACK_APP_TOKEN or SLACK_SIGNING_SECRET is not set",
        "SLACK_BOT_TOKEN is not set",
    ]


# Secrets

LEAKS = [
    ("slack_bot_token", SECRET),
    ("slack_bot_token", f"xoxb-{SECRET} "),
    ("slack_app_token", SECRET),
    ("slack_signing_secret", f"{SECRET} x"),
    ("kapa_api_key", f"{SECRET}\n"),
    ("redis_url", f"http://:{SECRET}@redis"),
    ("redis_url", f"redis://:{SECRET}@redis:port"),
    ("redis_url", f"redis://:{SECRET}@h\N{ACCOUNT OF}/0"),
    ("redis_url", f"redis://:{SECRET}@[redis]/0"),
    ("redis_url", f"redis://:{SECRET}\n@redis/0"),
    ("redis_url", f"redis+sentinel://:{SECRET}@redis:26379"),
    ("redis_url", f"redis+sentinel://one?sentinel_password={SECRET}"),
    ("redis_url", f"redis+cluster://:{SECRET}@one,h\N{ACCOUNT OF}"),
    ("redis_url", f"redis+cluster://:h\N{ACCOUNT OF}{SECRET}@one"),
    ("redis_url", f"redis+cluster://:{SECRET}@one,two:port"),
    ("redis_url", f"redis+cluster://:{SECRET}@one/0"),
    ("kapa_api_url", f"https://user:{SECRET}@api.kapa.ai"),
    ("kapa_api_url", f"https://user:{SECRET}@h\N{ACCOUNT OF}"),
    ("kapa_api_url", f"https://user:{SECRET}@api.kapa.ai:x"),
    ("slack_api_url", f"https://user:{SECRET}@slack.com/api/"),
    ("slack_api_url", f"https://user:{SECRET}@slack.com"),
]


@pytest.mark.parametrize(("name", "text"), LEAKS)
def test_no_problem_quotes_a_secret(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), text)
    [problem] = problems()
    assert SECRET not in problem
    assert problem.startswith(f"{name.upper()}: ")


def test_no_secret_shows_in_the_settings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: text for name, text, _ in GOOD if name in SECRETS}
    for name in given:
        text = {"slack_bot_token": f"xoxb-{SECRET}", "slack_app_token": f"xapp-{SECRET}"}.get(name, SECRET)
        monkeypatch.setenv(name.upper(), f"redis://:{SECRET}@redis" if name == "redis_url" else text)
    found = load(SECRETS)
    assert set(given) == set(SECRETS)
    for shown in (repr(found), str(found), repr(found.model_dump()), found.model_dump_json()):
        assert SECRET not in shown


def test_every_secret_is_known_as_one() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == set(SECRETS)


# Where they come from


def test_the_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("BRIDGE_PORT=4000\nBRIDGE_HOST=::1\nNOT_OURS=1\n# a comment\n", encoding="utf-8")
    monkeypatch.setenv("BRIDGE_HOST", "10.0.0.1")
    assert (value("bridge_port"), value("bridge_host")) == (4000, "10.0.0.1")


def test_problems_of_the_file_are_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("BRIDGE_PORT=x\n", encoding="utf-8")
    monkeypatch.setenv("BRIDGE_ADMIN_PORT", "y")
    assert [problem.split(":")[0] for problem in problems()] == ["BRIDGE_ADMIN_PORT", "BRIDGE_PORT"]


def test_overrides_win_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("BRIDGE_PORT=4000\n", encoding="utf-8")
    monkeypatch.setenv("BRIDGE_PORT", "x")
    assert load(overrides={"bridge_port": 5000}).bridge_port == 5000


@pytest.mark.parametrize("name", DEFAULTS)
def test_empty_is_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"{name.upper()}=\n", encoding="utf-8")
    assert value(name) == DEFAULTS[name]
    monkeypatch.setenv(name.upper(), "")
    assert value(name) == DEFAULTS[name]


def test_an_empty_required_setting_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAPA_API_KEY", "")
    assert problems("kapa_api_key") == (f"KAPA_API_KEY is not set: it should be {should('kapa_api_key')}",)


def test_a_file_that_is_no_text_is_refused() -> None:
    Path(".env").write_bytes(b"BRIDGE_HOST=\xff\xfe\n")
    assert problems() == (".env should be a text file in UTF-8",)


def test_a_file_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A regular file of which even root can read no byte.
    monkeypatch.setattr(settings, "ENV_FILE", Path("/proc/self/mem"))
    [problem] = problems()
    assert "cannot be read" in problem


def test_a_folder_named_like_the_file_is_none() -> None:
    Path(".env").mkdir()
    assert value("bridge_port") == 3000


# Names that are none


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], {}),
        ([name.upper() for name in DEFAULTS], {}),
        (["bridge_port", "Bridge_Port"], {}),
        (["SLACK_TOKEN", "REDIS_HOST", "PATH", "MY_BRIDGE_PORT", "BRIDGET", "KAPA"], {}),
        (["KAPA_APIKEY", "bridge_answers"], {"BRIDGE_ANSWERS": "BRIDGE_ANSWER", "KAPA_APIKEY": "KAPA_API_KEY"}),
        (["BRIDGE_SERVICE_HOST"], {"BRIDGE_SERVICE_HOST": None}),
        (["BRIDGE_XYZZY"], {"BRIDGE_XYZZY": None}),
    ],
)
def test_names_that_are_no_settings(names: list[str], found: dict[str, str | None]) -> None:
    assert unknown_among(names) == found


@given(st.lists(st.text() | st.sampled_from(sorted(DEFAULTS)) | st.text().map("BRIDGE_{}".format)))
def test_any_names_are_settings_or_none(names: list[str]) -> None:
    found = unknown_among(names)
    assert not {name.lower() for name in found} & set(DEFAULTS)
    assert all(name.startswith(("BRIDGE_", "KAPA_")) for name in found)
    assert {nearest.lower() for nearest in found.values() if nearest} <= set(DEFAULTS)


def test_names_are_looked_for_in_the_file_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown() == {}
    Path(".env").write_text("BRIDGE_PORT=4000\nBRIDGE_PROT=1\nKAPA_KEY=1\nNOT_OURS=1\n", encoding="utf-8")
    monkeypatch.setenv("KAPA_PROJECT", "x")
    monkeypatch.setenv("BRIDGE_HOSTS", "")
    assert unknown() == {
        "BRIDGE_PROT": "BRIDGE_PORT",
        "KAPA_KEY": "KAPA_API_KEY",
        "KAPA_PROJECT": "KAPA_PROJECT_ID",
    }
    assert load().bridge_port == 4000


# What is required of whom

KAPA = {"kapa_api_key", "kapa_project_id", "kapa_integration_id"}
WAYS_IN = ("slack_app_token", "slack_signing_secret")


@pytest.mark.parametrize(
    ("role", "names", "any_of"),
    [
        (Role.ALL, {"slack_bot_token", *KAPA}, WAYS_IN),
        (Role.INGRESS, {"slack_bot_token", "redis_url"}, WAYS_IN),
        (Role.WORKER, {"slack_bot_token", "redis_url", *KAPA}, ()),
    ],
)
def test_required_of_each_role(role: Role, names: set[str], any_of: tuple[str, ...]) -> None:
    required, one_of = app.required(role)
    assert (set(required), one_of) == (names, any_of)
    assert len(problems(*required, any_of=one_of)) == len(names) + bool(any_of)


@pytest.mark.parametrize("name", WAYS_IN)
def test_one_way_in_is_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name.upper(), "xapp-1")
    assert load(any_of=WAYS_IN)


def test_a_broken_way_in_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_APP_TOKEN", "wrong")
    [problem] = problems(any_of=WAYS_IN)
    assert problem.startswith("SLACK_APP_TOKEN: ")


@pytest.mark.parametrize(
    ("app_token", "signing_secret", "said", "transport"),
    [
        ("xapp-1", None, None, Transport.SOCKET),
        ("xapp-1", None, "http", Transport.SOCKET),
        (None, "secret", None, Transport.HTTP),
        (None, "secret", "socket", Transport.HTTP),
        ("xapp-1", "secret", None, Transport.SOCKET),
        ("xapp-1", "secret", "http", Transport.HTTP),
    ],
)
def test_the_way_in(app_token: str | None, signing_secret: str | None, said: str | None, transport: StrEnum) -> None:
    given = {"slack_app_token": app_token, "slack_signing_secret": signing_secret, "bridge_transport": said}
    assert load(overrides={name: text for name, text in given.items() if text}).transport is transport


@pytest.mark.parametrize(("days", "seconds"), [("90", 7_776_000), ("0.5", 43_200), ("0.000001", 1)])
def test_days_are_whole_seconds(days: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_THREAD_TTL_DAYS", days)
    assert load().thread_ttl_seconds == seconds


# Reactions


def test_the_default_reactions_are_the_contract_s() -> None:
    upvotes = ["+1", "heart", "tada", "100", "white_check_mark", "heavy_check_mark", "raised_hands"]
    assert load().reactions == {
        **dict.fromkeys(upvotes, UPVOTE),
        "-1": DOWNVOTE,
        **dict.fromkeys(["x", "no_entry", "no_entry_sign"], Vote(Reaction.DOWNVOTE, frozenset({Reason.INCORRECT}))),
        "shrug": Vote(Reaction.DOWNVOTE, frozenset({Reason.IRRELEVANT})),
        **dict.fromkeys(["question", "grey_question"], Vote(Reaction.DOWNVOTE, frozenset({Reason.UNADDRESSED}))),
    }
    assert "thumbsup=upvote" in settings.DEFAULT_REACTIONS
    assert "thumbsdown=downvote" in settings.DEFAULT_REACTIONS


@pytest.mark.parametrize(
    ("text", "votes"),
    [
        ("heart=upvote", {"heart": UPVOTE}),
        (
            " :heart: = upvote , x=downvote:incorrect ,",
            {"heart": UPVOTE, "x": parse_reactions("x=downvote:incorrect")["x"]},
        ),
        ("thumbsup=upvote", {"+1": UPVOTE}),
        ("thumbsdown=downvote", {"-1": DOWNVOTE}),
        ("thumbsup::skin-tone-3=upvote", {"+1": UPVOTE}),
        ("a=upvote,a=downvote", {"a": DOWNVOTE}),
    ],
)
def test_reactions_are_read(text: str, votes: dict[str, Vote]) -> None:
    assert parse_reactions(text) == votes


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "heart",
        "heart=",
        "=upvote",
        ":=upvote",
        "heart=like",
        "heart=upvote:incorrect",
        "x=downvote:wrong",
        "x=Downvote",
        "x=downvote:incorrect:irrelevant",
        "heart=upvote;x=downvote",
    ],
)
def test_reactions_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not emoji=|names no emoji"):
        parse_reactions(text)


@given(st.text())
def test_any_reactions_are_read_or_refused(text: str) -> None:
    try:
        votes = parse_reactions(text)
    except ValueError:
        return
    assert votes
    assert all(name and vote.reaction in set(Reaction) for name, vote in votes.items())


# The documentation


def documented() -> set[str]:
    return set(re.findall(r"^\| `[A-Z_]+` \|.*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))


def expected_row(name: str) -> str:
    field = Settings.model_fields[name]
    default = f"`{field.default}`" if field.default not in (None, ()) else "–"
    if name == "bridge_reactions":
        default = "[below](#bridge_reactions)"
    return f"| `{name.upper()}` | {default} | {field.description} | {should(name)} |"


def test_the_documentation_has_exactly_these_settings() -> None:
    expected = [expected_row(name) for name in Settings.model_fields]
    assert documented() == set(expected), "docs/configuration.md should have these rows:\n" + "\n".join(expected)


def test_the_documentation_has_the_default_reactions() -> None:
    assert f"\nBRIDGE_REACTIONS={settings.DEFAULT_REACTIONS}\n" in DOCS.read_text(encoding="utf-8")
    [example] = re.findall(r"`BRIDGE_REACTIONS=([^`]+)`", DOCS.read_text(encoding="utf-8"))
    assert parse_reactions(example)


def test_the_documentation_tells_what_each_role_needs() -> None:
    rows = dict(re.findall(r"^\| (`bridge [^|]+) \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    for role, command in {
        Role.ALL: "`bridge run`, `bridge check`",
        Role.INGRESS: "`bridge run --role ingress`",
        Role.WORKER: "`bridge run --role worker`",
    }.items():
        required, any_of = app.required(role)
        assert set(re.findall(r"`([A-Z_]+)`", rows[command])) == {name.upper() for name in (*required, *any_of)}
