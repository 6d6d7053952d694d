"""A Slack workspace in memory: people, channels, messages, threads, reactions and statuses.

Everything that happens is told twice: to the app as a Slack event (`emit`), to onlookers as a small change
(`publish`). What a caller may do is checked here; what a message may look like in `slack_rules`.
No network, no waiting.
"""

import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from bridge.playground import slack_events as events
from bridge.playground.serving import Json
from bridge.playground.slack_rules import SlackError

_STATUS_SECONDS = 120
_MESSAGES_KEPT = 20_000
_EPHEMERALS_KEPT = 500


@dataclass(frozen=True)
class Person:
    """Someone in the workspace; `bot_id` is set for bots, `team` for people of another company."""

    id: str
    name: str
    real_name: str
    bot_id: str | None = None
    team: str = ""


@dataclass
class Channel:
    """A conversation; `type` is `channel`, `group` (private) or `im`. Messages by ts, oldest first.

    One that `is_shared` has people of another company in it.
    """

    id: str
    name: str
    type: str
    members: set[str]
    is_shared: bool = False
    messages: OrderedDict[str, Json] = field(default_factory=OrderedDict)
    replies: dict[str, list[str]] = field(default_factory=dict)
    ephemerals: deque[Json] = field(default_factory=lambda: deque(maxlen=_EPHEMERALS_KEPT))
    statuses: dict[str, tuple[float, Json]] = field(default_factory=dict)

    def thread(self, ts: str) -> list[Json]:
        """Give the message `ts` and its replies, oldest first."""
        wanted = [ts, *self.replies.get(ts, ())]
        return [self.messages[one] for one in wanted if one in self.messages]


class Workspace:
    """The state of one simulated workspace and everything that can happen in it."""

    def __init__(
        self,
        *,
        team: str,
        bot: Person,
        people: Iterable[Person],
        channels: Iterable[Channel],
        clock: Callable[[], float],
        emit: Callable[..., object],
        publish: Callable[[Json], None],
    ) -> None:
        self.team = team
        self.bot = bot
        self.people = {person.id: person for person in (*people, bot)}
        self.channels = {channel.id: channel for channel in channels}
        self._clock = clock
        self._emit = emit
        self._publish = publish
        self._last_ts = 0

    def channel(self, channel_id: Any) -> Channel:
        """Find a channel by its id, or a direct message by the person's; raises SlackError channel_not_found."""
        if not isinstance(channel_id, str):
            raise SlackError("channel_not_found")
        found = self.channels.get(channel_id)
        if found is None and channel_id in self.people:
            found = next((c for c in self.channels.values() if c.type == "im" and channel_id in c.members), None)
        if found is None:
            raise SlackError("channel_not_found")
        return found

    def joined(self, channel_id: Any) -> Channel:
        """Find a channel that the bot is in; raises SlackError not_in_channel, or for a private one that it is not."""
        channel = self.channel(channel_id)
        if self.bot.id not in channel.members:
            raise SlackError("not_in_channel" if channel.type == "channel" else "channel_not_found")
        return channel

    def team_of(self, user: str) -> str:
        """Give the team that a person is of: the workspace's own unless they are of another company."""
        person = self.people.get(user)
        return (person and person.team) or self.team

    def message(self, channel: Channel, ts: Any) -> Json:
        """Find a message; raises SlackError message_not_found."""
        found = channel.messages.get(ts) if isinstance(ts, str) else None
        if found is None:
            raise SlackError("message_not_found")
        return found

    def next_ts(self) -> str:
        """Give a new ts: the time in microseconds, later than every ts before."""
        self._last_ts = max(int(self._clock() * 1_000_000), self._last_ts + 1)
        return f"{self._last_ts // 1_000_000:010d}.{self._last_ts % 1_000_000:06d}"

    def post(self, user: str, channel: Channel, content: Json, thread: str | None = None) -> Json:
        """Post a message with Slack's own fields in `content`; gives it as it is stored."""
        message = self._compose(user, channel, content, thread)
        channel.messages[message["ts"]] = message
        root = self._join_thread(channel, message) if "thread_ts" in message else None
        while len(channel.messages) > _MESSAGES_KEPT:
            oldest, _ = channel.messages.popitem(last=False)
            channel.replies.pop(oldest, None)
        if user == self.bot.id and "thread_ts" in message:
            self.set_status(channel, message["thread_ts"], {})
        self._publish({"type": "posted", "channel": channel.id, "message": deepcopy(message)})
        self._tell(channel, events.message_event(message, channel.id, channel.type, root))
        if self._mentions_bot(message) and channel.type != "im":
            self._tell(channel, events.mention_event(message, channel.id))
        return message

    def _compose(self, user: str, channel: Channel, content: Json, thread: str | None) -> Json:
        message: Json = {"type": "message", "user": user, "ts": self.next_ts(), "team": self.team, **self._origin(user)}
        author = self.people.get(user)
        if author is not None and author.bot_id:
            app = "A0BRIDGE" if author.id == self.bot.id else "A0OTHER"
            message |= {"bot_id": author.bot_id, "app_id": app}
        else:
            message["client_msg_id"] = str(uuid.uuid4())
        message |= content
        if thread is not None:
            parent = channel.messages.get(thread)
            # A reply's ts names its thread as well.
            root = thread if parent is None else parent.get("thread_ts", thread)
            author_of_root = channel.messages.get(root, {}).get("user")
            message |= {"thread_ts": root} | ({"parent_user_id": author_of_root} if author_of_root else {})
        return message

    def _origin(self, user: str) -> Json:
        team = self.team_of(user)
        return {} if team == self.team else {"team": team, "user_team": team, "source_team": team}

    def _join_thread(self, channel: Channel, reply: Json) -> Json | None:
        ts = reply["thread_ts"]
        channel.replies.setdefault(ts, []).append(reply["ts"])
        root = channel.messages.get(ts)
        if root is not None:
            root["thread_ts"] = ts
            self._count_replies(channel, root)
        return root

    def _count_replies(self, channel: Channel, root: Json) -> None:
        replies = channel.thread(root["ts"])[1:]
        users = list(dict.fromkeys(reply["user"] for reply in replies))
        root["reply_count"] = len(channel.replies.get(root["ts"], ()))
        root |= {"reply_users": users, "reply_users_count": len(users)}
        if replies:
            root["latest_reply"] = replies[-1]["ts"]

    def edit(self, user: str, channel: Channel, ts: str, content: Json) -> Json:
        """Replace a message's text and blocks (and metadata where given); raises SlackError for another's."""
        message = self.message(channel, ts)
        if message["user"] != user:
            raise SlackError("cant_update_message")
        if message.get("streaming_state") == "in_progress":
            raise SlackError("streaming_state_conflict")
        previous = deepcopy(message)
        for replaced in ("blocks", "streaming_state"):
            message.pop(replaced, None)
        message |= content
        if message.get("metadata") == {}:
            del message["metadata"]
        at = self.next_ts()
        message["edited"] = {"user": user, "ts": at}
        self._publish({"type": "changed", "channel": channel.id, "message": deepcopy(message)})
        self._tell(channel, events.changed_event(message, previous, channel.id, channel.type, at))
        if self._mentions_bot(message) and not self._mentions_bot(previous) and channel.type != "im":
            self._tell(channel, {**events.mention_event(message, channel.id), "event_ts": at})
        return message

    def amend(self, channel: Channel, message: Json, content: Json) -> None:
        """Change a message for onlookers; the app hears nothing of it."""
        message |= content
        self._publish({"type": "changed", "channel": channel.id, "message": deepcopy(message)})

    def delete(self, user: str, channel: Channel, ts: str) -> None:
        """Delete a message: one with replies leaves a tombstone. Raises SlackError for another's."""
        message = self.message(channel, ts)
        if message["user"] != user:
            raise SlackError("cant_delete_message")
        if channel.replies.get(ts):
            stone = events.tombstone(message)
            channel.messages[ts] = stone
            self._publish({"type": "changed", "channel": channel.id, "message": deepcopy(stone)})
            at = self.next_ts()
            self._tell(channel, events.changed_event(stone, message, channel.id, channel.type, at))
        else:
            self._remove(channel, message)

    def _remove(self, channel: Channel, message: Json) -> None:
        del channel.messages[message["ts"]]
        self._publish({"type": "deleted", "channel": channel.id, "ts": message["ts"]})
        self._tell(channel, events.deleted_event(message, channel.id, channel.type, self.next_ts()))
        root_ts = str(message.get("thread_ts", message["ts"]))
        if root_ts == message["ts"]:
            return
        channel.replies[root_ts].remove(message["ts"])
        root = channel.messages.get(root_ts)
        if root is None:
            return
        self._count_replies(channel, root)
        if root.get("subtype") == "tombstone" and not channel.replies[root_ts]:
            self._remove(channel, root)

    def react(self, user: str, channel: Channel, ts: str, name: str) -> None:
        """Put an emoji on a message; raises SlackError already_reacted."""
        message = self.message(channel, ts)
        reactions = message.setdefault("reactions", [])
        reaction = next((one for one in reactions if one["name"] == name), None)
        if reaction is None:
            reaction = {"name": name, "users": [], "count": 0}
            reactions.append(reaction)
        if user in reaction["users"]:
            raise SlackError("already_reacted")
        reaction["users"].append(user)
        self._reacted("reaction_added", user, channel, message, reaction)

    def unreact(self, user: str, channel: Channel, ts: str, name: str) -> None:
        """Take an emoji away again; raises SlackError no_reaction."""
        message = self.message(channel, ts)
        reactions = message.get("reactions", [])
        reaction = next((one for one in reactions if one["name"] == name and user in one["users"]), None)
        if reaction is None:
            raise SlackError("no_reaction")
        reaction["users"].remove(user)
        if not reaction["users"]:
            reactions.remove(reaction)
        self._reacted("reaction_removed", user, channel, message, reaction)

    def _reacted(self, kind: str, user: str, channel: Channel, message: Json, reaction: Json) -> None:
        reaction["count"] = len(reaction["users"])
        self._publish({"type": "changed", "channel": channel.id, "message": deepcopy(message)})
        event = events.reaction_event(kind, user, reaction["name"], message, channel.id, self.next_ts())
        self._tell(channel, {**event, **self._origin(user)})

    def set_status(self, channel: Channel, thread: str, status: Json) -> None:
        """Show what the bot is doing in a thread; `{}` clears it, and so do 2 minutes."""
        if not status and thread not in channel.statuses:
            return
        if status:
            channel.statuses[thread] = (self._clock() + _STATUS_SECONDS, status)
        else:
            del channel.statuses[thread]
        self._publish({"type": "status", "channel": channel.id, "thread_ts": thread, "status": status})

    def status(self, channel: Channel, thread: str) -> Json:
        """Give the bot's status in a thread as it was set, `{}` for none."""
        until, status = channel.statuses.get(thread, (0.0, {}))
        return status if until > self._clock() else {}

    def whisper(self, channel: Channel, user: str, content: Json) -> str:
        """Show a message to one person only; gives its ts."""
        if user not in channel.members:
            raise SlackError("user_not_in_channel")
        message = {"type": "message", "subtype": "ephemeral", "user": self.bot.id, "ts": self.next_ts(), **content}
        channel.ephemerals.append({**message, "to": user})
        self._publish({"type": "ephemeral", "channel": channel.id, "to": user, "message": deepcopy(message)})
        return str(message["ts"])

    def _mentions_bot(self, message: Json) -> bool:
        return f"<@{self.bot.id}>" in message.get("text", "") and message.get("user") != self.bot.id

    def _tell(self, channel: Channel, event: Json) -> None:
        if self.bot.id in channel.members:
            self._emit(deepcopy(event), is_ext_shared_channel=channel.is_shared)
