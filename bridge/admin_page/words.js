// Numbers and times as people read them.

export function number(value) {
  return value.toLocaleString("en", { maximumFractionDigits: 1 });
}

// 0.0042 → "4.2 ms", 3.25 → "3.3 s", 3700 → "1 h 2 min".
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995) return `${digits(seconds * 1000)} ms`;
  if (seconds < 59.5) return `${digits(seconds)} s`;
  if (seconds < 3569.5) return joined(Math.round(seconds), 60, "min", "s");
  if (seconds < 84600) return joined(Math.round(seconds / 60), 60, "h", "min");
  return joined(Math.round(seconds / 3600), 24, "d", "h");
}

// The same for an axis, which has little room: 90 → "1.5 min".
export function shortDuration(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= size) ?? [];
  return size ? `${Number((seconds / size).toFixed(1))} ${unit}` : duration(seconds);
}

function digits(value) {
  return value < 9.95 ? String(Number(value.toFixed(1))) : String(Math.round(value));
}

function joined(all, size, large, small) {
  const rest = all % size;
  return `${Math.floor(all / size)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

// The time of day of seconds since the epoch, where the reader is.
export function clock(at, withSeconds = false) {
  const look = { hour: "2-digit", minute: "2-digit", ...(withSeconds ? { second: "2-digit" } : {}) };
  return new Date(at * 1000).toLocaleTimeString("en-GB", look);
}

// The time of day, and the day where that is another one.
export function moment(at, now) {
  const day = new Date(at * 1000);
  if (day.toDateString() === new Date(now * 1000).toDateString()) return clock(at);
  return `${day.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${clock(at)}`;
}

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

// ["a", "b", "c"] → "a, b and c"
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
