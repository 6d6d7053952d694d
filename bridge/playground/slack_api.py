"""Slack's Web API over a simulated workspace: transport, tokens, scopes, faults and limits around each method.

https://docs.slack.dev/apis/web-api/ . What the methods do is in `slack_methods`.
"""

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from bridge.playground.serving import Changes, Fault, Faults, Json, drop, hang
from bridge.playground.slack_limits import RateLimiter
from bridge.playground.slack_methods import Method
from bridge.playground.slack_rules import SlackError

log = structlog.get_logger()

# What an app has that was made from the bridge's manifest; a test holds the two together.
BOT_SCOPES = "app_mentions:read,channels:history,chat:write,groups:history,im:history,mpim:history,reactions:read"
APP_SCOPE = "connections:write"
_STRINGS = (
    *("channel", "channel_id", "ts", "thread_ts", "timestamp", "user", "name", "markdown_text", "trigger_id"),
    *("recipient_team_id", "recipient_user_id"),
)
_HTTP_FAULTS = {
    "500": (500, "application/json", '{"ok":false,"error":"internal_error"}'),
    "502": (502, "text/html", "<html><body><h1>502 Bad Gateway</h1></body></html>"),
    "garbage": (200, "application/json", '{"ok": tru'),
}
_AFTERWARDS = ("drop_after", "hang_after")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Web API. `args` without the token; `outcome` is `ok`, Slack's error code, or the fault shown.

    `at` is when it was answered, `seconds` after it came in. `ts` is the message that it made or changed, `broken` the
    fault that was shown after it was done.
    """

    method: str
    args: Json
    at: float
    outcome: str
    seconds: float = 0.0
    ts: str = ""
    broken: str = ""
    number: int = 0


@dataclass(frozen=True)
class Tokens:
    """The tokens that the simulated Slack accepts."""

    bot: str
    app: str


class WebApi:
    """The HTTP handler of `/api/{method}`; what a call asks for is done `latency` seconds after it came in."""

    def __init__(
        self,
        *,
        methods: dict[str, Method],
        tokens: Tokens,
        limiter: RateLimiter,
        changes: Changes,
        clock: Callable[[], float],
        keep: int = 10_000,
    ) -> None:
        self.calls: deque[Call] = deque(maxlen=keep)
        self.rate_limited: Counter[str] = Counter()
        self.latency = 0.0
        self.faults = Faults(clock)
        self.scopes = set(BOT_SCOPES.split(","))
        self._methods = methods
        self._tokens = tokens
        self._limiter = limiter
        self._changes = changes
        self._clock = clock
        self._numbers = itertools.count(1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        name, began = request.match_info["method"], self._clock()
        args = await _arguments(request)
        token = _token(request, args)
        if self.latency:
            await asyncio.sleep(self.latency)
        fault = self.faults.take(name, _subject(args))
        if fault is not None and fault.action not in _AFTERWARDS:
            self._record(name, args, fault.action, began)
            return await self._misbehave(request, name, fault)
        body = self._call(name, args, token)
        self._record(name, args, "ok" if body["ok"] else body["error"], began, str(body.get("ts", "")), fault)
        if fault is not None:
            return drop(request) if fault.action == "drop_after" else await hang()
        if body.get("error") == "ratelimited":
            return self._rate_limited(name, str(body.pop("retry_after")))
        scopes = {APP_SCOPE} if token == self._tokens.app else self.scopes
        return web.json_response(body, headers={"X-OAuth-Scopes": ",".join(sorted(scopes))})

    def _call(self, name: str, args: Json, token: str) -> Json:
        try:
            method = self._methods.get(name)
            if method is None:
                raise SlackError("unknown_method", req_method=name)
            self._authorize(method, token, args)
            self._check_limit(name, args)
            _check_arguments(method, args)
            run = method.as_app if method.as_app and token == self._tokens.app else method.run
            return {"ok": True, **run(args)}
        except SlackError as refusal:
            return refusal.body

    def _authorize(self, method: Method, token: str, args: Json) -> None:
        if not token:
            raise SlackError("not_authed")
        if token not in (self._tokens.bot, self._tokens.app):
            raise SlackError("invalid_auth")
        if token == self._tokens.app and method.as_app:
            return
        if token != (self._tokens.app if method.takes_app_token else self._tokens.bot):
            raise SlackError("not_allowed_token_type")
        scope = method.scope_of(args) if method.scope_of else method.scope
        if scope and scope not in self.scopes:
            raise SlackError("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))

    def _check_limit(self, name: str, args: Json) -> None:
        seconds = self._limiter.wait(name, str(args.get("channel", "")))
        if seconds is not None:
            raise SlackError("ratelimited", retry_after=seconds)

    async def _misbehave(self, request: web.Request, name: str, fault: Fault) -> web.StreamResponse:
        if fault.action == "drop_before":
            return drop(request)
        if fault.action == "hang":
            return await hang()
        if fault.action == "429":
            return self._rate_limited(name, fault.retry_after)
        if fault.action in _HTTP_FAULTS:
            status, content_type, text = _HTTP_FAULTS[fault.action]
            return web.Response(status=status, content_type=content_type, text=text)
        return web.json_response({"ok": False, "error": fault.action})

    def _rate_limited(self, name: str, retry_after: str | None) -> web.Response:
        self.rate_limited[name] += 1
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)

    def _record(
        self, name: str, args: Json, outcome: str, began: float, ts: str = "", fault: Fault | None = None
    ) -> None:
        now, broken = self._clock(), fault.action if fault else ""
        self.calls.append(Call(name, args, now, outcome, now - began, ts, broken, next(self._numbers)))
        self._changes.publish()
        log.debug("slack_called", method=name, outcome=outcome)


def _subject(args: Json) -> str:
    """Name the message that a call is about; of one that is to be posted, its thread."""
    return f"{args.get('channel')}:{args.get('ts') or args.get('thread_ts') or ''}"


def _check_arguments(method: Method, args: Json) -> None:
    problems = [f"missing required field: {field}" for field in method.required if args.get(field) in (None, "")]
    problems += [
        f"must be a string [json-pointer:/{field}]"
        for field in _STRINGS
        if args.get(field) is not None and not isinstance(args[field], str)
    ]
    if problems:
        raise SlackError("invalid_arguments", *problems)


async def _arguments(request: web.Request) -> Json:
    """Read arguments as Slack does: from the query, a form or a JSON body, where JSON may hide in a string."""
    args: Json = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            body = None
        args |= body if isinstance(body, dict) else {}
    elif request.can_read_body:
        args |= {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    for name in ("blocks", "metadata", "loading_messages", "view"):
        if isinstance(args.get(name), str):
            args[name] = _from_json(args[name])
    return args


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _token(request: web.Request, args: Json) -> str:
    argument = str(args.pop("token", ""))
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" else argument
