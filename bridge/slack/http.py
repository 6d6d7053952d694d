"""HTTP mode: the one route that Slack posts events, interactivity and commands to.

The signature is verified on the raw bytes before anything is parsed. What is done with an event lives in `app`.
"""

from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier

from bridge.slack.app import malformed

PATH: Final = "/slack/events"
MOST_BYTES: Final = 1024 * 1024

log = structlog.get_logger()


def routes(app: AsyncApp, signing_secret: str) -> web.Application:
    """Build the server's one route; answers 401 to a wrong signature and 400 to what has no shape.

    Source: https://docs.slack.dev/authentication/verifying-requests-from-slack.
    """
    verifier = SignatureVerifier(signing_secret)

    async def events(request: web.Request) -> web.Response:
        try:
            raw = await request.read()
        except (web.RequestPayloadError, BadHttpMessage):
            log.warning("request_malformed", remote=request.remote)
            return web.Response(status=400, text="the body cannot be read")
        if not is_signed(verifier, raw, request):
            log.warning("signature_refused", remote=request.remote)
            return web.Response(status=401, text="the signature does not match, or is older than five minutes")
        try:
            bolt_request = AsyncBoltRequest(
                body=raw.decode("utf-8"),
                query=request.query_string,
                headers={"content-type": request.headers.get("Content-Type", "")},
            )
            if not isinstance(bolt_request.body, dict):
                raise TypeError("not an object")
            response = await app.async_dispatch(bolt_request)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            # Bolt reads a payload's ids and actions before any listener runs, and stumbles over any odd shape.
            log.warning("payload_malformed")
            response = malformed()
        if response.status == HTTPStatus.OK and not response.body:
            return web.Response()
        return await to_aiohttp_response(response)

    server = web.Application(client_max_size=MOST_BYTES)
    server.router.add_post(PATH, events)
    return server


def is_signed(verifier: SignatureVerifier, raw: bytes, request: web.Request) -> bool:
    """Say whether Slack signed these bytes within the last five minutes; any odd header is a no."""
    timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
    signature = request.headers.get("X-Slack-Signature", "")
    if not (timestamp.isascii() and timestamp.isdigit() and signature.isascii()):
        return False
    try:
        return verifier.is_valid(raw, timestamp, signature)
    except (ValueError, UnicodeDecodeError):
        return False
