"""A Redis client that sends in one go what is asked of it in the same moment.

Many conversations ask Redis for little things at the same time, and an exchange costs far more than what is in it. So
does what redis-py does around one, which is left out here but for its retry: where a connection breaks, or Redis is
silent, all of an exchange is sent once more on a new one. What is asked lives elsewhere.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

# It may wait for something to read, and others would wait with it.
_BLOCKING: Final = "XREADGROUP"
CLOSING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Command:
    args: tuple[Any, ...]
    options: dict[str, Any]
    packed: bytes


class PipeliningRedis(Redis):
    """redis-py's client; while it is busy, what is asked in the same turn of the event loop shares a pipeline.

    Every command has its own reply or error, as without that, and no transaction is implied; only a reply that cannot
    be read is everyone's trouble. Who is cancelled while waiting for a reply does not take the others' away: the
    command may have been carried out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._under_way = 0
        self._asked: dict[asyncio.Future[Any], _Command] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._at_rest = asyncio.Event()
        self._at_hand: Any = None
        self._is_closing = False
        named = self.connection_pool.connection_kwargs.get("retry_on_error") or ()
        # What fails a whole exchange is tried again as a whole.
        self._worth_another = tuple(error for error in named if issubclass(error, ResponseError))

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command; raises redis.RedisError."""
        if args[0] == _BLOCKING:
            return await self._alone(args, options)
        # What cannot be sent fails here, and not with everyone else's.
        packed = _packed(args)
        if not self._under_way and not self._asked:
            return await self._at_once(_Command(args, options, packed))
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._send_on)
        reply: asyncio.Future[Any] = loop.create_future()
        self._asked[reply] = _Command(args, options, packed)
        return await reply

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections, once what is under way has had a moment to end."""
        # What was asked in this turn is sent in the next.
        await asyncio.sleep(0)
        self._is_closing = True
        with suppress(TimeoutError):  # what is late is ended below, or by its connection's end
            async with asyncio.timeout(CLOSING_SECONDS):
                if self._sending:
                    await asyncio.wait(self._sending)
                if self._under_way:
                    await self._at_rest.wait()
        late = [task for task in self._sending if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        connection, self._at_hand = self._at_hand, None
        if connection is not None:
            await self.connection_pool.release(connection)
        await super().aclose(close_connection_pool)

    async def _at_once(self, command: _Command) -> Any:
        with self._busy():
            [reply] = await self._replies([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _alone(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Leave a command to redis-py."""
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis-py's

    def _send_on(self) -> None:
        asked, self._asked = self._asked, {}
        waiting = {reply: command for reply, command in asked.items() if not reply.done()}
        if not waiting:
            return
        task = asyncio.create_task(self._send(waiting))
        self._sending.add(task)

        def over(_: asyncio.Future[None]) -> None:
            self._sending.discard(task)
            # A task that is cancelled before it begins answers nobody.
            _answer(waiting, [RedisConnectionError("the client was closed")] * len(waiting))

        task.add_done_callback(over)

        def given_up(_: asyncio.Future[Any]) -> None:
            # With nobody left who waits for it, a connection that is silent is free again.
            if all(reply.cancelled() for reply in waiting):
                task.cancel()

        for reply in waiting:
            reply.add_done_callback(given_up)

    async def _send(self, asked: Mapping[asyncio.Future[Any], _Command]) -> None:
        try:
            with self._busy():
                replies = await self._replies(list(asked.values()))
        except Exception as error:  # noqa: BLE001 - whatever it is, everyone who waits hears of it
            replies = [error] * len(asked)
        _answer(asked, replies)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._under_way += 1
        self._at_rest.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._at_rest.set()

    async def _replies(self, commands: Sequence[_Command]) -> list[Any]:
        """Give the reply to each command, or its error; raises redis.RedisError where there are none."""
        connection = await self._borrow()
        try:
            replies = await connection.retry.call_with_retry(
                lambda: self._exchange(connection, commands),
                lambda error: connection.disconnect(error=error),
                # What closing cuts off must not go on after it.
                is_retryable=lambda _: not self._is_closing,
            )
        finally:
            await self._give_back(connection)
        return [
            await self._once_more(command) if isinstance(reply, self._worth_another) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    async def _borrow(self) -> Any:
        """Give a connection of the pool; one is kept at hand, since the pool takes longer than all else."""
        if self._at_hand is None:
            return await self.connection_pool.get_connection()  # type: ignore[no-untyped-call] # redis-py's
        connection, self._at_hand = self._at_hand, None
        try:
            await self.connection_pool.ensure_connection(connection)
        except BaseException:
            await self.connection_pool.release(connection)
            raise
        return connection

    async def _give_back(self, connection: Any) -> None:
        # Where the pool has no other, somebody may wait for this one.
        if self._at_hand is None and not self._is_closing and self.connection_pool.can_get_connection():
            self._at_hand = connection
        else:
            await asyncio.shield(self.connection_pool.release(connection))

    async def _exchange(self, connection: Any, commands: Sequence[_Command]) -> list[Any]:
        patience = connection.socket_timeout
        try:
            await connection.send_packed_command([command.packed for command in commands])
            # One timeout for all: redis-py's own for each reply takes longer than the reply.
            connection.socket_timeout = None
            async with asyncio.timeout(patience):
                return [await self._reply(connection, command) for command in commands]
        except BaseException as error:
            # Nobody may be given the reply to what was asked here.
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Redis is silent") from None
            raise
        finally:
            connection.socket_timeout = patience

    async def _reply(self, connection: Any, command: _Command) -> Any:
        try:
            return await self.parse_response(connection, command.args[0], **command.options)
        except ResponseError as error:
            return error

    async def _once_more(self, command: _Command) -> Any:
        try:
            return await self._alone(command.args, command.options)
        except RedisError as error:
            return error


def _answer(asked: Mapping[asyncio.Future[Any], _Command], replies: Sequence[Any]) -> None:
    """Give everyone who still waits their reply, or its error."""
    for future, reply in zip(asked, replies, strict=True):
        if future.done():
            continue
        if isinstance(reply, Exception):
            # One that is raised in many places would gather all their tracebacks.
            future.set_exception(copy(reply))
        else:
            future.set_result(reply)


def _packed(args: tuple[Any, ...]) -> bytes:
    """Give the bytes of a command, whose name may be two words; raises redis.DataError, UnicodeEncodeError."""
    try:
        return cast("bytes", hiredis.pack_command((*args[0].split(), *args[1:])))
    except TypeError as error:
        raise DataError(str(error)) from None
