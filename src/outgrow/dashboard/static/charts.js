// Line charts on canvas: light, sharp on every screen, with one crosshair for all of them.

import { clock, element, text } from "/static/format.js";

export const LEFT = 62, RIGHT = 8;
const TOP = 8, BOTTOM = 20, KEYS_MAX = 6;
export const TICKS = { 300: 60, 900: 180, 7200: 1800 };

// The upper end of the axis and the distance of its lines: round numbers, three or four lines.
function scaleFor(value, unit) {
  const base = unit === "bytes" || unit === "bytes_rate" ? 1024 ** Math.max(0, Math.floor(Math.log(Math.max(1, value)) / Math.log(1024))) : 1;
  const smallest = unit === "cores" ? 0.03 : unit === "ms" ? 0.3 : 1;
  const wanted = Math.max(value, smallest) / base / 3;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= wanted * 0.999) * power * base;
  return { step, top: Math.max(1, Math.ceil(value / step - 0.001)) * step };
}

function axisText(value, unit) { return value ? text(value, unit).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "") : "0"; }

export class Chart {
  // `lines` gives [{name, label, color, fill}] anew for each drawing: nodes come and go.
  constructor({ title, unit, lines, hint, several, some }) {
    this.title = title;
    this.unit = unit;
    this.lines = lines;
    this.several = several;  // shown only where there are several series of this kind
    this.some = some;  // or any
    this.hover = null;
    this.canvas = element("canvas", { role: "img", tabindex: "0", "aria-label": title });
    this.rest = element("span", { class: "key" });
    this.legend = element("div", { class: "legend" }, this.rest);
    this.root = element("figure", { class: "panel chart" },
      element("figcaption", { title: hint }, element("h3", {}, title), this.legend), this.canvas);
    this.keys = new Map();
    this.context = this.canvas.getContext("2d");
  }

  draw(series, colors, marks) {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const lines = this.lines(series);
    const values = lines.map((line) => series.get(line.name));
    this.area = { width: box.width - LEFT - RIGHT, height: box.height - TOP - BOTTOM };
    const { top, step } = scaleFor(Math.max(0, ...values.map(highest)), this.unit);
    const context = this.context;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    this.drawGrid(context, box, top, step, series, colors);
    this.drawMarks(context, box, series, colors, marks);
    lines.forEach((line, index) => this.drawLine(context, box, values[index], top, series, colors[line.color], line.fill));
    const at = this.hover === null ? lastKnown(values) : this.hover;
    if (this.hover !== null) this.drawCross(context, box, lines, values, at, top, series, colors);
    this.fillLegend(lines, values, at, colors, series);
  }

  x(index, series) { return LEFT + (index / Math.max(1, series.length - 1)) * this.area.width; }
  y(value, top) { return TOP + this.area.height * (1 - Math.min(1, value / top)); }

  drawGrid(context, box, top, step, series, colors) {
    context.font = `11px ${colors.font}`;
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let value = 0; value <= top * 1.001; value += step) {
      const y = Math.round(this.y(value, top)) + 0.5;
      context.strokeStyle = value ? colors.grid : colors.axis;
      context.beginPath();
      context.moveTo(LEFT, y);
      context.lineTo(box.width - RIGHT, y);
      context.stroke();
      context.fillStyle = colors.muted;
      context.fillText(axisText(value, this.unit), LEFT - 7, y);
    }
    context.textBaseline = "alphabetic";
    context.textAlign = "center";
    const tick = TICKS[series.seconds];
    for (let at = Math.ceil(series.since / tick) * tick; at < series.until; at += tick) {
      const x = this.x((at - series.since) / series.step, series);
      if (x > LEFT + 14 && x < box.width - 18) context.fillText(clock(at, false), x, box.height - 5);
    }
  }

  drawMarks(context, box, series, colors, marks) {
    for (const mark of marks) {
      const index = (mark.at - series.since) / series.step;
      if (index < 0 || index > series.length - 1) continue;
      const x = Math.round(this.x(index, series)) + 0.5;
      context.strokeStyle = mark.bad ? colors.bad : colors.accent;
      context.globalAlpha = 0.55;
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(x, TOP);
      context.lineTo(x, box.height - BOTTOM);
      context.stroke();
      context.setLineDash([]);
      context.globalAlpha = 1;
    }
  }

  drawLine(context, box, values, top, series, color, fill) {
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    context.strokeStyle = color;
    let start = null;
    context.beginPath();
    for (let index = 0; index <= values.length; index++) {
      const value = values[index];
      if (value === null || value === undefined) {
        if (start !== null && fill) this.fillUnder(context, box, values, start, index - 1, top, series, color);
        if (start !== null && start === index - 1) context.rect(this.x(start, series) - 0.8, this.y(values[start], top) - 0.8, 1.6, 1.6);
        start = null;
        continue;
      }
      const x = this.x(index, series), y = this.y(value, top);
      if (start === null) { context.moveTo(x, y); start = index; } else context.lineTo(x, y);
    }
    context.stroke();
  }

  fillUnder(context, box, values, from, to, top, series, color) {
    const path = new Path2D();
    path.moveTo(this.x(from, series), box.height - BOTTOM);
    for (let index = from; index <= to; index++) path.lineTo(this.x(index, series), this.y(values[index], top));
    path.lineTo(this.x(to, series), box.height - BOTTOM);
    context.globalAlpha = 0.1;
    context.fillStyle = color;
    context.fill(path);
    context.globalAlpha = 1;
  }

  drawCross(context, box, lines, values, index, top, series, colors) {
    const x = Math.round(this.x(index, series)) + 0.5;
    context.strokeStyle = colors.muted;
    context.globalAlpha = 0.6;
    context.beginPath();
    context.moveTo(x, TOP);
    context.lineTo(x, box.height - BOTTOM);
    context.stroke();
    context.globalAlpha = 1;
    lines.forEach((line, number) => {
      const value = values[number][index];
      if (value === null || value === undefined) return;
      context.fillStyle = colors[line.color];
      context.beginPath();
      context.arc(x, this.y(value, top), 3, 0, 7);
      context.fill();
    });
  }

  fillLegend(lines, values, index, colors, series) {
    const told = [];
    const wanted = new Set();
    const { shown, rest } = chosen(values, index);
    lines.forEach((line, number) => {
      if (!shown.has(number)) return;
      wanted.add(line.name);
      let key = this.keys.get(line.name);
      if (!key) {
        key = { dot: element("i"), label: element("span"), value: element("b") };
        key.root = element("span", { class: "key" }, key.dot, key.label, key.value);
        this.keys.set(line.name, key);
        this.legend.insertBefore(key.root, this.rest);
      }
      key.dot.style.backgroundColor = colors[line.color];
      const figure = text(values[number][index], this.unit);
      if (key.label.textContent !== line.label) key.label.textContent = line.label;
      if (key.value.textContent !== figure) key.value.textContent = figure;
      told.push(`${line.label} ${figure}`);
    });
    if (this.rest.textContent !== (rest ? `+ ${rest}` : "")) this.rest.textContent = rest ? `+ ${rest}` : "";
    for (const [name, key] of this.keys) {
      if (!wanted.has(name)) { key.root.remove(); this.keys.delete(name); }
    }
    const when = this.hover === null ? "" : `, at ${clock(series.since + index * series.step)}`;
    this.canvas.setAttribute("aria-label", `${this.title}${when}: ${told.join(", ") || "nothing yet"}`);
  }

  indexAt(event, series) {
    const box = this.canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / this.area.width;
    return Math.max(0, Math.min(series.length - 1, Math.round(share * (series.length - 1))));
  }
}

function highest(values) {
  let found = 0;
  for (const value of values) if (value > found) found = value;
  return found;
}

// Which lines have a key: of many those that are known at this moment and are the largest over the whole range, so
// that they seldom change; and how many more are known.
function chosen(values, index) {
  const all = values.map((_, number) => number);
  if (all.length <= KEYS_MAX) return { shown: new Set(all), rest: 0 };
  const known = all.filter((number) => typeof values[number][index] === "number");
  const sums = values.map((each) => each.reduce((sum, value) => sum + (value ?? 0), 0));
  const shown = known.sort((a, b) => sums[b] - sums[a]).slice(0, KEYS_MAX);
  return { shown: new Set(shown), rest: known.length - shown.length };
}

function lastKnown(values) {
  let found = -1;
  for (const each of values) {
    let index = each.length - 1;
    while (index >= 0 && (each[index] === null || each[index] === undefined)) index--;
    found = Math.max(found, index);
  }
  return found;
}

// A line without axes, for a tile.
export function sparkline(canvas, values, color) {
  const box = canvas.getBoundingClientRect();
  if (!box.width) return;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, box.width, box.height);
  const top = Math.max(highest(values) * 1.15, 1e-9);
  const x = (index) => (index / Math.max(1, values.length - 1)) * (box.width - 2) + 1;
  const y = (value) => box.height - 1.5 - (box.height - 4) * (value / top);
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  let drawing = false;
  values.forEach((value, index) => {
    if (value === null || value === undefined) { drawing = false; return; }
    if (drawing) context.lineTo(x(index), y(value)); else context.moveTo(x(index), y(value));
    drawing = true;
  });
  context.stroke();
}
