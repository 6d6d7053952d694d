"""What people do in the simulated Slack, as methods: they talk, react, change their minds, click and fill in modals.

What comes of it is decided in `slack_workspace`, `slack_streams`, `slack_clicks` and `slack_modals`.
"""

from collections.abc import Mapping
from typing import Any

from bridge.playground import slack_events
from bridge.playground.serving import Json
from bridge.playground.slack_cast import BOT
from bridge.playground.slack_clicks import Clicks
from bridge.playground.slack_delivery import Delivery
from bridge.playground.slack_modals import Modals
from bridge.playground.slack_streams import Streams
from bridge.playground.slack_workspace import Workspace


class People:
    """The people of one workspace; each method names who acts."""

    workspace: Workspace
    _streams: Streams
    _clicks: Clicks
    _modals: Modals

    async def say(
        self,
        user: str,
        channel: str,
        text: str,
        *,
        thread: str | None = None,
        mention: bool = False,
        subtype: str | None = None,
        client_msg_id: str | None = None,
    ) -> str:
        """Post a message as a person; gives its ts at once, its events are on their way.

        `text` is Slack's own form (escaped, `<@U…>`); `mention` puts the bridge's mention before it.
        """
        text = f"<@{BOT.id}> {text}".rstrip() if mention else text
        content: Json = {"text": text, "blocks": slack_events.rich_text(text)}
        if client_msg_id:
            content["client_msg_id"] = client_msg_id
        if subtype:
            content["subtype"] = subtype
        if subtype == "file_share":
            content |= {"files": [{"id": "F0FILE", "name": "notes.txt", "mimetype": "text/plain"}], "upload": True}
        return str(self.workspace.post(user, self.workspace.channel(channel), content, thread)["ts"])

    async def react(self, user: str, channel: str, ts: str, emoji: str) -> None:
        """Put an emoji on a message as a person."""
        self.workspace.react(user, self.workspace.channel(channel), ts, emoji)

    async def unreact(self, user: str, channel: str, ts: str, emoji: str) -> None:
        """Take an emoji away again as a person."""
        self.workspace.unreact(user, self.workspace.channel(channel), ts, emoji)

    async def edit(self, user: str, channel: str, ts: str, text: str) -> None:
        """Edit one's own message."""
        content: Json = {"text": text, "blocks": slack_events.rich_text(text)}
        self.workspace.edit(user, self.workspace.channel(channel), ts, content)

    async def delete(self, user: str, channel: str, ts: str) -> None:
        """Delete one's own message."""
        self.workspace.delete(user, self.workspace.channel(channel), ts)

    def stop_stream(self, channel: str, ts: str) -> None:
        """Press Stop on a message that grows; raises SlackError where it does not."""
        self._streams.stop_as_person(self.workspace.channel(channel), ts)

    async def press(self, user: str, channel: str, ts: str, action_id: str, *, value: str | None = None) -> Delivery:
        """Press a button of a message that this person sees; raises LookupError where there is none.

        `value` stands in for the button's own; of a menu it is the option to choose.
        """
        return await self._clicks.press(user, self.workspace.channel(channel), ts, action_id, value)

    async def give_feedback(self, user: str, channel: str, ts: str, positive: bool) -> Delivery | None:
        """Press one of a message's feedback buttons; None where it was selected and is let go: no app hears of that."""
        return await self._clicks.give_feedback(user, self.workspace.channel(channel), ts, positive)

    async def submit(self, user: str, view_id: str, values: Mapping[str, Any]) -> Delivery:
        """Submit a modal with `values` by action id: a text, an option, or a list of options.

        Raises ValueError for what Slack itself does not let pass, LookupError where the person has no such modal.
        """
        return await self._modals.submit(user, view_id, values)

    def dismiss(self, user: str, view_id: str) -> None:
        """Close a modal unsent; raises LookupError where the person has no such modal."""
        self._modals.dismiss(user, view_id)

    def join(self, channel: str) -> None:
        """Invite the bridge to a channel."""
        self.workspace.channel(channel).members.add(BOT.id)

    def leave(self, channel: str) -> None:
        """Remove the bridge from a channel."""
        self.workspace.channel(channel).members.discard(BOT.id)

    def dm(self, user: str) -> str:
        """Give the id of a person's direct messages with the bridge."""
        return self.workspace.channel(user).id
