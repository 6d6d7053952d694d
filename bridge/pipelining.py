"""A Redis client that sends in one go what is asked of it in the same moment.

Many conversations ask Redis for little things at the same time, and an exchange costs far more than what is in it. What
is asked lives elsewhere.
"""

import asyncio
from copy import copy
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

# It may wait for something to read, and others would wait with it.
_BLOCKING: Final = "XREADGROUP"
CLOSING_SECONDS: Final = 1.0

_Asked = tuple[tuple[Any, ...], dict[str, Any], asyncio.Future[Any]]


class PipeliningRedis(Redis):
    """redis-py's client; while it is busy, what is asked in the same turn of the event loop shares a pipeline.

    Every command has its own reply or error, as without that, and no transaction is implied. Who is cancelled while
    waiting for a reply does not take the others' away: the command may have been carried out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._under_way = 0
        self._asked: list[_Asked] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._encoder = self.get_encoder()  # type: ignore[no-untyped-call] # redis-py's
        named = self.connection_pool.connection_kwargs.get("retry_on_error") or ()
        # Whatever fails a whole pipeline is tried again by redis-py itself.
        self._worth_another = tuple(error for error in named if issubclass(error, ResponseError))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command; raises redis.RedisError."""
        if args[0] == _BLOCKING:
            return await self._alone(args, options)
        if not self._under_way and not self._asked:
            self._under_way += 1
            try:
                return await self._alone(args, options)
            finally:
                self._under_way -= 1
        # What cannot be sent fails here, and not with everyone else's.
        encoded = (args[0], *map(self._encoder.encode, args[1:]))
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._send_on)
        reply: asyncio.Future[Any] = loop.create_future()
        self._asked.append((encoded, options, reply))
        return await reply

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections, once what is under way has had a moment to end."""
        # What was asked in this turn is sent in the next.
        await asyncio.sleep(0)
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await super().aclose(close_connection_pool)

    def _alone(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py's

    def _send_on(self) -> None:
        asked, self._asked = [one for one in self._asked if not one[2].done()], []
        if not asked:
            return
        task = asyncio.create_task(self._send(asked))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

        def given_up(_: asyncio.Future[Any]) -> None:
            # With nobody left who waits for it, a connection that is silent is free again.
            if all(future.cancelled() for _, _, future in asked):
                task.cancel()

        for _, _, future in asked:
            future.add_done_callback(given_up)

    async def _send(self, asked: list[_Asked]) -> None:
        replies: list[Any] = [RedisConnectionError("the client was closed")] * len(asked)
        self._under_way += 1
        try:
            replies = await self._replies(asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, everyone who waits hears of it
            replies = [error] * len(asked)
        finally:
            self._under_way -= 1
            for (_, _, future), reply in zip(asked, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, Exception):
                    # One that is raised in many places would gather all their tracebacks.
                    future.set_exception(copy(reply))
                else:
                    future.set_result(reply)

    async def _replies(self, asked: list[_Asked]) -> list[Any]:
        async with self.pipeline(transaction=False) as pipe:
            for args, options, _ in asked:
                pipe.execute_command(*args, **options)
            replies = await pipe.execute(raise_on_error=False)
        return [
            await self._once_more(args, options) if isinstance(reply, self._worth_another) else reply
            for (args, options, _), reply in zip(asked, replies, strict=True)
        ]

    async def _once_more(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return await self._alone(args, options)
        except RedisError as error:
            return error
