// What happened, on the time axis of the charts: a lane for each server with its state, and above them the marks
// of what changed the whole. Drawn on one canvas; the crosshair of the charts is its own, too.

import { clock, element } from "/static/format.js";
import { LEFT, RIGHT, TICKS } from "/static/charts.js";

const TOP = 26, LANE = 18, BAR = 10, BOTTOM = 20;
// What the server writes for a state (servers.py): its name, its colour, how much of the lane it fills.
const STATES = [
  null, { says: "serves", color: "good", full: 0.45 }, { says: "starts", color: "blue", full: 0.7 }, { says: "drains", color: "doubtful", full: 0.7 },
  { says: "ejected", color: "orange", full: 1 }, { says: "out", color: "bad", full: 1 }, { says: "failed", color: "bad", full: 1 },
];
// The kinds of events that are marked, with their sign and colour.
const MARKS = {
  failover: ["⇄", "bad"], stage: ["◆", "accent"], growth: ["◆", "accent"], scale: ["▲", "accent"], deploy: ["●", "teal"], drill: ["✦", "orange"],
  fleet: ["■", "muted"], restart: ["×", "bad"], failed: ["×", "bad"], out: ["×", "bad"], ejected: ["×", "orange"], in: ["✓", "good"], draining: ["▼", "doubtful"],
};

// The phases of a failover, each as long as it took, above the lanes.
const PHASES = { detection: "bad", election: "orange", promotion: "doubtful", reconfiguration: "blue", recovery: "good" };

// Where signs would lie on each other, the first of these kinds is shown: a failover, not the restart that it caused.
const KINDS = Object.keys(MARKS), APART = 13;

export class Timeline {
  constructor(root) {
    this.hover = null;
    this.canvas = element("canvas", { role: "img", tabindex: "0", "aria-label": "Timeline" });
    this.note = element("p", { class: "note moment" });
    const key = element("div", { class: "legend" }, ...[["good", "serves"], ["blue", "starts"], ["doubtful", "drains"], ["orange", "ejected"], ["bad", "out or failed"]]
      .map(([color, says]) => element("span", { class: "key" }, element("i", { "data-color": color }), says)));
    this.root = element("figure", { class: "panel chart timeline" }, element("figcaption", {}, element("h3", {}, "What happened"), key), this.canvas, this.note);
    root.append(this.root);
    this.context = this.canvas.getContext("2d");
    this.area = { width: 1 };
  }

  draw(series, colors, events, failovers) {
    const lanes = series.ofKind("state").map((name) => ({ name: name.slice(6), values: series.get(name) })).sort((a, b) => a.name.length - b.name.length || (a.name < b.name ? -1 : 1));
    const tall = `${TOP + Math.max(1, lanes.length) * LANE + BOTTOM}px`;
    if (this.canvas.style.height !== tall) this.canvas.style.height = tall;
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; }
    this.area = { width: box.width - LEFT - RIGHT };
    const context = this.context;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    this.drawAxis(context, box, series, colors);
    lanes.forEach((lane, row) => this.drawLane(context, lane, row, series, colors));
    const shown = events.filter((event) => MARKS[event.kind] && event.at >= series.since && event.at < series.until);
    this.signs = [];
    for (const event of [...shown].sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind))) this.drawMark(context, event, lanes, series, colors);
    for (const failover of failovers) this.drawFailover(context, failover, series, colors);
    if (this.hover !== null) this.drawCross(context, box, series, colors);
    this.tell(lanes, shown, series);
  }

  x(index, series) { return LEFT + (index / Math.max(1, series.length - 1)) * this.area.width; }

  drawAxis(context, box, series, colors) {
    context.font = `11px ${colors.font}`;
    context.lineWidth = 1;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillStyle = colors.muted;
    const tick = TICKS[series.seconds];
    for (let at = Math.ceil(series.since / tick) * tick; at < series.until; at += tick) {
      const x = Math.round(this.x((at - series.since) / series.step, series)) + 0.5;
      context.strokeStyle = colors.grid;
      context.beginPath();
      context.moveTo(x, TOP - 4);
      context.lineTo(x, box.height - BOTTOM);
      context.stroke();
      if (x > LEFT + 14 && x < box.width - 18) context.fillText(clock(at, false), x, box.height - 5);
    }
    context.strokeStyle = colors.axis;
    context.beginPath();
    context.moveTo(LEFT, box.height - BOTTOM + 0.5);
    context.lineTo(box.width - RIGHT, box.height - BOTTOM + 0.5);
    context.stroke();
  }

  drawLane(context, lane, row, series, colors) {
    const middle = TOP + row * LANE + LANE / 2;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillStyle = colors.muted;
    context.fillText(lane.name.length > 9 ? `${lane.name.slice(0, 8)}…` : lane.name, LEFT - 7, middle);
    const half = this.x(1, series) - this.x(0, series);
    let from = 0;
    for (let index = 1; index <= lane.values.length; index++) {
      if (lane.values[index] === lane.values[from] && index < lane.values.length) continue;
      const state = STATES[lane.values[from]];
      if (state) {
        context.fillStyle = colors[state.color];
        const tall = BAR * state.full;
        context.fillRect(this.x(from, series), middle - tall / 2, Math.max(1, this.x(index - 1, series) + half - this.x(from, series)), tall);
      }
      from = index;
    }
  }

  drawMark(context, event, lanes, series, colors) {
    const [sign, color] = MARKS[event.kind];
    const row = lanes.findIndex((lane) => lane.name === event.node || lane.name === event.node?.split(".")[0]);
    if (row < 0 && event.node && !["failed", "restart"].includes(event.kind)) return;
    const x = this.x((event.at - series.since) / series.step, series);
    if (row >= 0 && ["in", "draining", "fleet"].includes(event.kind)) return;  // the lane's own colour says it
    context.fillStyle = colors[color];
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `12px ${colors.font}`;
    if (row >= 0) context.fillText(sign, x, TOP + row * LANE + LANE / 2);
    else {
      if (this.signs.every((other) => Math.abs(other - x) >= APART)) { this.signs.push(x); context.fillText(sign, x, TOP - 14); }
      context.globalAlpha = 0.4;
      context.fillRect(Math.round(x), TOP - 6, 1, lanes.length * LANE + 6);
      context.globalAlpha = 1;
    }
  }

  drawFailover(context, { began, phases }, series, colors) {
    let at = began;
    for (const [name, color] of Object.entries(PHASES)) {
      if (!(name in phases)) continue;
      const from = this.x((at - series.since) / series.step, series), to = this.x((at + phases[name] - series.since) / series.step, series);
      at += phases[name];
      if (to < LEFT || from > LEFT + this.area.width) continue;
      context.fillStyle = colors[color];
      context.fillRect(Math.max(from, LEFT), TOP - 7, Math.max(2, to - Math.max(from, LEFT)), 5);
    }
  }

  drawCross(context, box, series, colors) {
    const x = Math.round(this.x(this.hover, series)) + 0.5;
    context.strokeStyle = colors.muted;
    context.beginPath();
    context.moveTo(x, TOP - 6);
    context.lineTo(x, box.height - BOTTOM);
    context.stroke();
  }

  // In words: what was at the crosshair, or what happened last.
  tell(lanes, events, series) {
    let said;
    if (this.hover === null) {
      const last = events.reduce((found, event) => (found === null || event.at >= found.at ? event : found), null);
      said = last ? `Last: ${clock(last.at)} ${words(last)}` : "Nothing happened in this time.";
    } else {
      const at = series.since + this.hover * series.step, near = Math.max(2, series.step, series.seconds / 150);
      const not = lanes.filter((lane) => (lane.values[this.hover] ?? 1) > 1).map((lane) => `${lane.name} ${STATES[lane.values[this.hover]].says}`);
      const then = events.filter((event) => Math.abs(event.at - at) <= near).sort((a, b) => a.at - b.at).slice(-4).map(words);
      said = `${clock(at)}: ${[...then, ...not].join("; ") || "all as it should be"}`;
    }
    if (this.note.textContent !== said) this.note.textContent = said;
    const label = `Timeline of ${lanes.length} servers. ${said}`;
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
  }

  indexAt(event, series) {
    const box = this.canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / this.area.width;
    return Math.max(0, Math.min(series.length - 1, Math.round(share * (series.length - 1))));
  }
}

const words = (event) => `${event.node ? `${event.node} ` : ""}${event.text}`;
