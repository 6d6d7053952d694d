// Emoji by Slack's names. What counts as a vote by default stands first.

// symbol (with * where it has skin tones), name,other names, words that find it
const VOTES = `
👍* +1,thumbsup good yes like agree
👎* -1,thumbsdown bad no dislike
❤️ heart love red
🎉 tada party hooray
💯 100 hundred perfect
✅ white_check_mark done yes correct
✔️ heavy_check_mark done yes correct
🙌* raised_hands hooray praise
❌ x wrong no incorrect
⛔ no_entry stop
🚫 no_entry_sign forbidden
🤷* shrug dunno whatever
❓ question what
❔ grey_question what
`;
const OTHERS = `
👀 eyes look see
🙏* pray,thanks please thank you
👏* clap applause bravo
👋* wave hello bye
👌* ok_hand fine
✌️* v victory peace
🤞* crossed_fingers luck
🤘* the_horns metal
💪* muscle strong
👊* facepunch,punch fist bump
✊* fist
🤝 handshake deal
👉* point_right
👈* point_left
👆* point_up_2
👇* point_down
🖐️* raised_hand_with_fingers_splayed hand
✋* hand,raised_hand stop high five
🫡 saluting_face salute
😀 grinning happy
😄 smile happy
😂 joy laugh tears
🤣 rolling_on_the_floor_laughing rofl
🙂 slightly_smiling_face
😉 wink
😍 heart_eyes love
🤩 star-struck wow
😎 sunglasses cool
🤔 thinking_face think hmm
😅 sweat_smile phew
😬 grimacing awkward
🙄 face_with_rolling_eyes
😕 confused unsure
😢 cry sad
😭 sob sad
😡 rage angry
😱 scream fear
🤯 exploding_head mind blown
😴 sleeping tired
🥳 partying_face party
🤖 robot_face bot
👻 ghost
💀 skull dead
💩 hankey,poop
🤦* face_palm facepalm
🙋* raising_hand question me
💡 bulb idea light
🔥 fire hot
✨ sparkles new
⭐ star
🌟 star2
🚀 rocket launch ship
🏆 trophy win
🎯 dart target exactly
🐛 bug
🐢 turtle slow
🐌 snail slow
🦄 unicorn_face
🔍 mag search
📌 pushpin pin
📎 paperclip
📝 memo,pencil note write
📚 books docs
📖 book,open_book docs
🔗 link url
🔒 lock secure
🔑 key
🔧 wrench fix
🛠️ hammer_and_wrench tools
⚙️ gear settings
⏳ hourglass_flowing_sand wait
⏰ alarm_clock time
⚠️ warning careful
❗ exclamation,heavy_exclamation_mark important
‼️ bangbang
➕ heavy_plus_sign add
➖ heavy_minus_sign
♻️ recycle
🆗 ok
🆕 new
🔴 red_circle
🟢 large_green_circle green
🔵 large_blue_circle blue
🟡 large_yellow_circle yellow
☀️ sunny weather sun
🌧️ rain_cloud weather
🌈 rainbow
☕ coffee
🍕 pizza
🍰 cake
🎂 birthday
🎁 gift
💔 broken_heart
💙 blue_heart
💚 green_heart
💛 yellow_heart
🧡 orange_heart
💜 purple_heart
`;
const SPOKEN = {
  "+1": "thumbs up", "-1": "thumbs down", 100: "hundred points", x: "cross mark", v: "victory hand",
  tada: "party popper", white_check_mark: "check mark button", heavy_check_mark: "check mark",
};
export const TONES = ["default", "light", "medium-light", "medium", "medium-dark", "dark"];

const read = (lines) => lines.trim().split("\n").map((line) => {
  const [symbol, names, ...words] = line.split(" ");
  const all = names.split(",");
  return { symbol: symbol.replace("*", ""), hasTones: symbol.endsWith("*"), name: all[0], names: all, words };
});
export const GROUPS = [{ title: "Votes", emoji: read(VOTES) }, { title: "More", emoji: read(OTHERS) }];
const KNOWN = new Map(GROUPS.flatMap((group) => group.emoji).flatMap((one) => one.names.map((name) => [name, one])));

// Unicode's modifiers begin where Slack's `skin-tone-2` does.
function toned(symbol, tone) {
  return symbol.replace("\ufe0f", "") + String.fromCodePoint(0x1f3fb + tone - 2);
}

function parts(reaction) {
  const [name, tone = ""] = reaction.split("::skin-tone-");
  return [KNOWN.get(name), Number(tone), name];
}

export function isKnown(reaction) {
  return parts(reaction)[0] !== undefined;
}

export function symbolOf(reaction) {
  const [known, tone, name] = parts(reaction);
  if (!known) return `:${name}:`;
  return known.hasTones && tone >= 2 && tone <= 6 ? toned(known.symbol, tone) : known.symbol;
}

export function spokenOf(reaction) {
  const [known, tone, name] = parts(reaction);
  const spoken = SPOKEN[known?.name ?? name] ?? name.replaceAll("_", " ");
  return tone >= 2 && tone <= 6 ? `${spoken} with ${TONES[tone - 1]} skin tone` : spoken;
}

export function found(group, typed) {
  const wanted = typed.toLowerCase().replaceAll(":", "").trim();
  const isWanted = (one) => [...one.names, ...one.words, spokenOf(one.name)]
    .some((word) => word.replaceAll("_", " ").includes(wanted.replaceAll("_", " ")));
  return group.emoji.filter(isWanted);
}
