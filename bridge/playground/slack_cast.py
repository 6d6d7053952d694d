"""Who and what the simulated workspace starts with: its people, its bots and its channels.

Constants and nothing that happens; `slack_workspace` says what a person and a channel are.
"""

from bridge.playground.slack_workspace import Channel, Person

BOT = Person("U0BRIDGE", "bridge", "Bridge", bot_id="B0BRIDGE")
PEOPLE = (
    Person("U0ADA", "ada", "Ada Lovelace"),
    Person("U0GRACE", "grace", "Grace Hopper"),
    Person("U0ALAN", "alan", "Alan Turing"),
)
OTHER_BOT = Person("U0BUILDS", "builds", "Build Bot", bot_id="B0BUILDS")
STRANGER = Person("U0EVE", "eve", "Eve of Acme", team="T0ACME")
"""Someone of another company, who shares one channel with the workspace and has no direct messages with the bridge."""
GENERAL, HELP, PRIVATE, ELSEWHERE, SHARED = "C0GENERAL", "C0HELP", "C0PRIVATE", "C0ELSEWHERE", "C0SHARED"
"""Channel ids: two public channels, a private one, one that the bridge is not in, one shared with another company."""
APP_ID = "A0BRIDGE"


def channels() -> list[Channel]:
    """Give the channels of a fresh workspace, and each person's direct messages with the bridge."""
    everyone = {person.id for person in (*PEOPLE, OTHER_BOT)}
    rooms = [
        Channel(GENERAL, "general", "channel", everyone | {BOT.id}),
        Channel(HELP, "help", "channel", everyone | {BOT.id}),
        Channel(PRIVATE, "secret-plans", "group", everyone | {BOT.id}),
        Channel(ELSEWHERE, "elsewhere", "channel", set(everyone)),
        Channel(SHARED, "with-acme", "channel", everyone | {BOT.id, STRANGER.id}, is_shared=True),
    ]
    return rooms + [Channel(f"D{p.id[1:]}", p.name, "im", {p.id, BOT.id}) for p in PEOPLE]
