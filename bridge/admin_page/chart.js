// One chart: bars of what happened in each step, lines of how long things took, or levels of how much there was.
// What is charted, and in which words, lives in charts.js.

import { make, redraw, say, svg } from "./dom.js";
import { bar, drawing, isKnown, lineOf, scaleOf, sum } from "./drawing.js";
import { capital, clock, duration, listed, number } from "./words.js";

const KEYS = {
  ArrowLeft: -1, ArrowDown: -1, PageDown: -10, Home: -Infinity, ArrowRight: 1, ArrowUp: 1, PageUp: 10, End: Infinity,
};
const CALLS = ["Call", "Outcome", "Calls", "Median", "95 of 100"];

export class Chart {
  #wanted;
  #view = null;
  #scale = null;
  #at = null;
  #parts;

  // `wanted` says what is charted: `id`, `title`, `about`, `scope`, `kind`, and `view(data)`, which gives what is to be
  // drawn of the bridge's answer: `series`, `value`, `beside`, `unit`, `empty`, and perhaps `rows` of calls.
  constructor(wanted) {
    this.#wanted = wanted;
    const plot = make("div", "plot");
    for (const [name, value] of Object.entries({ tabindex: 0, role: "slider", "aria-valuemin": 0 })) {
      plot.setAttribute(name, value);
    }
    this.#parts = {
      value: make("strong", ""), beside: make("span", ""), plot, tip: make("div", "tip"), empty: make("p", "empty"),
      legend: make("ul", "legend"), table: make("details", ""), calls: make("details", ""),
    };
    this.figure = this.#build();
    this.#listen();
  }

  #build() {
    const { value, beside, plot, tip, empty, legend, table, calls } = this.#parts;
    const { id, title, about, scope } = this.#wanted;
    table.append(make("summary", "", "As a table"), make("div", "table"));
    calls.append(make("summary", "", "Call by call"), make("div", "table"));
    const heading = make("h4", "", title);
    heading.id = `title-${id}`;
    const head = make("div", "chart-head", heading, make("span", "badge", scope));
    const figure = make("figure", "chart", head, make("p", "about", about), make("p", "value", value, " ", beside),
      make("div", "frame", plot, tip), empty, legend, table, calls);
    figure.id = `chart-${id}`;
    figure.setAttribute("aria-labelledby", heading.id);
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true");
    return figure;
  }

  #listen() {
    const { plot, table, calls } = this.#parts;
    new ResizeObserver(() => this.#draw()).observe(plot);
    plot.addEventListener("pointermove", (event) => this.#point(event));
    plot.addEventListener("pointerdown", (event) => this.#point(event));
    plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) this.#go(null); });
    plot.addEventListener("focus", () => { if (this.#at === null) this.#go(this.#last()); });
    plot.addEventListener("blur", () => this.#go(null));
    plot.addEventListener("keydown", (event) => this.#press(event));
    for (const one of [table, calls]) one.addEventListener("toggle", () => this.#tabulate());
  }

  update(data) {
    const chosen = this.#at === null ? null : this.#view.ends[this.#at];
    const { starts, ends, at: to, started: born } = data;
    this.#view = { ...this.#wanted.view(data), starts, ends, to, from: to - data.minutes * 60, born };
    const { value, beside, empty, legend, calls } = this.#parts;
    say(value, this.#view.value);
    say(beside, this.#view.beside);
    const isEmpty = !this.#view.series.some((series) => series.values.some((one) => one > 0));
    this.figure.classList.toggle("is-empty", isEmpty);
    say(empty, ends.length ? this.#view.empty : "The first numbers come ten seconds after the start.");
    redraw(legend, this.#view.series.map(({ name, tone, total }) => [name, tone, total]), () => this.#legend());
    calls.hidden = !this.#view.rows?.length;
    this.#at = chosen === null ? null : this.#near(chosen);
    this.#draw();
    this.#tabulate();
  }

  #format(value) {
    return this.#wanted.isDuration ? duration(value) : number(value);
  }

  #legend() {
    const shown = this.#view.series.filter((series) => this.#wanted.kind !== "bars" || series.total);
    return shown.map(({ name, tone, dashed, total }) => {
      const item = make("li", "", this.#swatch(tone, dashed), name);
      if (isKnown(total)) item.append(" ", make("b", "", this.#format(total)));
      return item;
    });
  }

  #swatch(tone, dashed) {
    const key = svg("svg", { width: 18, height: 12, "aria-hidden": "true" });
    key.append(...(this.#wanted.kind === "bars" ? bar(3, 1, 12, 10, tone) : [lineOf("M0 6h18", { tone, dashed })]));
    return key;
  }

  // Moving about

  #last() {
    return this.#view?.ends.length ? this.#view.ends.length - 1 : null;
  }

  #near(time) {
    const distances = this.#view.ends.map((end, place) => Math.abs((end + this.#view.starts[place]) / 2 - time));
    return distances.length ? distances.indexOf(Math.min(...distances)) : null;
  }

  #point(event) {
    if (!this.#scale) return;
    const { left } = this.#parts.plot.getBoundingClientRect();
    this.#go(this.#near(this.#scale.timeAt(event.clientX - left)));
  }

  #press(event) {
    if (event.key === "Escape") this.#go(null);
    if (!(event.key in KEYS) || this.#last() === null) return;
    event.preventDefault();
    this.#go(Math.min(this.#last(), Math.max(0, (this.#at ?? this.#last()) + KEYS[event.key])));
  }

  #go(at) {
    if (at === this.#at) return;
    this.#at = at;
    this.#draw();
  }

  // Drawing

  #draw() {
    const { plot } = this.#parts;
    if (!this.#view || !plot.clientWidth) return;
    this.#scale = scaleOf(this.#view, this.#wanted, plot.clientWidth);
    plot.replaceChildren(drawing(this.#view, this.#wanted, this.#scale, this.#at));
    this.#speak();
    this.#tip();
  }

  #rows(at) {
    return this.#view.series.map((series) => {
      const value = series.values[at];
      return { ...series, value, text: isKnown(value) ? this.#bounded(value) : "–" };
    });
  }

  // Of bars only those that are there are worth a word.
  #seen(at) {
    return this.#rows(at).filter((row) => this.#wanted.kind !== "bars" || row.value);
  }

  // What is in a histogram's last bucket may have taken any longer.
  #bounded(value) {
    return this.#view.most && value >= this.#view.most ? `over ${this.#format(this.#view.most)}` : this.#format(value);
  }

  #span(at) {
    const { starts, ends } = this.#view;
    const isShort = ends[at] - starts[at] < 45;
    return `${clock(starts[at], isShort)}–${clock(ends[at], isShort)}`;
  }

  #speak() {
    const { plot } = this.#parts;
    const at = this.#at ?? this.#last();
    const said = at === null ? [] : this.#seen(at).map((row) => `${row.name} ${row.text}`);
    const spoken = {
      label: `${this.#wanted.title}: ${this.#view.value} ${this.#view.beside}. Arrow keys go from step to step.`,
      valuemax: this.#last() ?? 0, valuenow: at ?? 0,
      valuetext: at === null ? "nothing yet" : `${this.#span(at)}: ${listed(said) || "nothing"}`,
    };
    for (const [name, value] of Object.entries(spoken)) plot.setAttribute(`aria-${name}`, String(value));
  }

  #tip() {
    const { tip } = this.#parts;
    tip.hidden = this.#at === null;
    if (tip.hidden) return;
    const rows = this.#seen(this.#at).map(({ tone, dashed, name, text }) => (
      make("li", "", this.#swatch(tone, dashed), name, " ", make("b", "", text))
    ));
    tip.replaceChildren(make("p", "", this.#span(this.#at)), rows.length ? make("ul", "", ...rows) : "nothing");
    const { x, width } = this.#scale;
    const middle = (x(this.#view.starts[this.#at]) + x(this.#view.ends[this.#at])) / 2;
    const isLeft = middle > width / 2;
    tip.style.insetInlineStart = isLeft ? "auto" : `${middle + 10}px`;
    tip.style.insetInlineEnd = isLeft ? `${width - middle + 10}px` : "auto";
  }

  // The same in words, for whom a drawing says nothing.

  #tabulate() {
    const { table, calls } = this.#parts;
    if (!this.#view) return;
    if (table.open) {
      const names = this.#view.series.map((series) => capital(series.name));
      const steps = this.#view.ends.map((_, at) => at).filter((at) => this.#happened(at)).reverse();
      const lines = steps.map((at) => [this.#span(at), ...this.#rows(at).map((row) => row.text)]);
      fill(table.lastChild, this.#wanted.title, ["Time", ...names], lines, "Nothing in this time.");
    }
    if (calls.open && this.#view.rows) {
      fill(calls.lastChild, this.#wanted.title, CALLS, this.#view.rows, "");
    }
  }

  #happened(at) {
    const values = this.#view.series.map((series) => series.values[at]);
    return this.#wanted.kind === "bars" ? sum(values) > 0 : values.some(isKnown);
  }
}

function fill(place, caption, heads, lines, otherwise) {
  redraw(place, [heads, lines], () => {
    if (!lines.length) return [make("p", "", otherwise)];
    const headOf = (text) => { const cell = make("th", "", text); cell.scope = "col"; return cell; };
    const bodyOf = (line) => make("tr", "", ...line.map((text) => make("td", "", text)));
    const head = make("thead", "", make("tr", "", ...heads.map(headOf)));
    return [make("table", "", make("caption", "unseen", caption), head, make("tbody", "", ...lines.map(bodyOf)))];
  });
  place.tabIndex = 0;
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", `${caption}, as a table`);
}
