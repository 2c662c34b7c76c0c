// The topology: a column for each tier, a box for each node, lines for who asks whom.
//
// Boxes are ordinary elements, so that they can be read, focused and wrapped; the lines are one SVG behind
// them, laid anew when anything moves. On a narrow screen the tiers stand below each other.

import { element, parts, put, span, text } from "/static/format.js";

const SVG = "http://www.w3.org/2000/svg";
const TIER_TITLES = {
  clients: "Clients", edge: "Edge", balancer: "Balancer", application: "Application",
  worker: "Workers", sessions: "Sessions", cache: "Cache", queue: "Queue", pooler: "Pooler", database: "Database",
};
const ROOMY_MAX = 3;  // with more boxes in a tier than this, each is one line that has all its figures
const BEHIND = new Set(["sessions", "cache", "queue", "pooler", "database"]);  // one column: the application asks each of them
const STATES = { ready: "good", done: "good", failed: "bad", stopped: "bad", ejected: "bad", unhealthy: "bad" };

export class Topology {
  constructor(root) {
    this.root = root;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("aria-hidden", "true");
    this.root.append(this.svg);
    this.tiers = new Map();
    this.boxes = new Map();
    this.links = [];
    this.lines = new Map();
    new ResizeObserver(() => this.layLines()).observe(this.root);
  }

  show(drawing, now) {
    const shape = JSON.stringify([drawing.tiers, drawing.boxes.map((box) => [box.id, box.tier, box.inside]), drawing.notes]);
    if (shape !== this.shape) this.build(drawing, shape);
    for (const box of drawing.boxes) this.fill(this.boxes.get(box.id), box, now);
    this.links = drawing.links;
    this.layLines();
  }

  build(drawing, shape) {
    const many = Math.max(...drawing.tiers.map((tier) => drawing.boxes.filter((box) => box.tier === tier && !box.inside).length));
    this.quiet = many > ROOMY_MAX;
    this.root.classList.toggle("many", this.quiet);
    const first = this.shape === undefined;
    this.shape = shape;
    const known = new Set(this.boxes.keys());
    for (const tier of this.tiers.values()) tier.root.remove();
    this.behind?.remove();
    this.behind = element("div", { class: "behind" });
    this.tiers.clear();
    this.boxes.clear();
    for (const name of drawing.tiers) {
      const list = element("div", { class: "stack" });
      const note = drawing.notes[name] ? element("p", { class: "note" }, drawing.notes[name]) : null;
      const root = element("div", { class: "tier", "data-tier": name, role: "group", "aria-label": TIER_TITLES[name] ?? name }, list, note);
      this.tiers.set(name, { root, list });
      (BEHIND.has(name) ? this.behind : this.root).append(root);
    }
    this.root.append(this.behind);
    if (this.tiers.has("pooler")) this.root.append(this.tiers.get("database")?.root ?? "");  // which the pooler asks
    for (const box of drawing.boxes) if (!box.inside) this.tiers.get(box.tier).list.append(this.makeBox(box, !first && !known.has(box.id)));
    for (const box of drawing.boxes) {
      if (box.inside) this.boxes.get(box.inside)?.parts.append(this.makeBox(box, !first && !known.has(box.id)));
    }
  }

  makeBox(box, isNew) {
    const made = {
      title: element("span", { class: "title" }), detail: element("span", { class: "kind" }),
      state: element("span", { class: "state" }), figures: element("dl", { class: "figures" }),
      foot: element("p", { class: "box-foot" }), parts: element("div", { class: "parts" }), values: new Map(),
    };
    const focusable = box.inside || box.id === "clients" ? {} : { tabindex: "0" };
    made.root = element("article", { class: `box${box.inside ? " part" : ""}${isNew ? " new" : ""}`, "data-id": box.id, "data-tier": box.tier, ...focusable },
      element("header", {}, element("i", { class: "dot" }), made.title, made.detail, made.state),
      made.figures, made.foot, made.parts);
    this.boxes.set(box.id, made);
    return made.root;
  }

  fill(made, box, now) {
    put(made.title, box.title);
    put(made.detail, box.detail === box.title || box.id === "clients" ? "" : box.detail);
    const level = STATES[box.state] ?? "doubtful";
    if (made.root.dataset.level !== level) made.root.dataset.level = level;
    put(made.state, box.state === "ready" ? "" : box.state);
    for (const figure of box.figures) {
      let shown = made.values.get(figure.label);
      if (!shown) {
        shown = { figure: element("b"), unit: element("small") };
        made.values.set(figure.label, shown);
        made.figures.append(element("div", {}, element("dt", {}, figure.label), element("dd", {}, shown.figure, shown.unit)));
      }
      const [value, unit] = parts(figure.value, figure.unit);
      put(shown.figure, value);
      put(shown.unit, unit);
    }
    const facts = [];
    if (box.address) facts.push(box.address);
    if (box.since && box.state === "ready") facts.push(`up ${span(now - box.since)}`);
    if (box.restarts) facts.push(box.restarts === 1 ? "1 restart" : `${box.restarts} restarts`);
    if (box.text && box.state !== "ready") facts.push(box.text);
    put(made.foot, facts.join(" · "));
    const told = box.figures.map((figure) => `${figure.label} ${text(figure.value, figure.unit)}`).join(", ");
    const label = `${box.title}, ${box.detail}, ${box.state}. ${told}`;
    if (made.root.getAttribute("aria-label") !== label) made.root.setAttribute("aria-label", label);
  }

  layLines() {
    const frame = this.root.getBoundingClientRect();
    if (!frame.width) return;
    this.svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const down = getComputedStyle(this.root).getPropertyValue("--down").trim() === "1";
    const seen = new Set();
    for (const { key, source, target, rate, along = 0.5 } of down ? this.trunks() : this.branches()) {
      seen.add(key);
      const line = this.lines.get(key) ?? this.makeLine(key);
      this.layLine(line, source.getBoundingClientRect(), target.getBoundingClientRect(), frame, down, rate, along);
    }
    for (const [key, line] of this.lines) if (!seen.has(key)) { line.group.remove(); this.lines.delete(key); }
  }

  // A line from box to box.
  branches() {
    return this.links.map((link) => ({
      key: `${link.source} ${link.target}`, source: this.boxes.get(link.source)?.root, target: this.boxes.get(link.target)?.root, rate: link.rate,
      along: this.along(link),
    })).filter((each) => each.source && each.target);
  }

  // Where on a line its rate is told: where several ask several, lines cross, so it is nearer to the one end or the other.
  along({ source, target }) {
    const sources = this.links.filter((link) => link.target === target).map((link) => link.source);
    const crossing = sources.length > 1 && this.links.filter((link) => link.source === source).length > 1;
    return crossing ? 0.2 + 0.6 * sources.indexOf(source) / (sources.length - 1) : 0.5;
  }

  // Where the boxes of a tier stand below each other, one line from tier to tier.
  trunks() {
    const found = new Map();
    for (const link of this.links) {
      const source = this.boxes.get(link.source)?.root.closest(".tier"), target = this.boxes.get(link.target)?.root.closest(".tier");
      if (!source || !target) continue;
      const key = `${source.dataset.tier} | ${target.dataset.tier}`;
      const trunk = found.get(key) ?? { key, source, target, rate: null };
      if (link.rate !== null) trunk.rate = (trunk.rate ?? 0) + link.rate;
      found.set(key, trunk);
    }
    return found.values();
  }

  makeLine(key) {
    const make = (name, kind) => { const made = document.createElementNS(SVG, name); made.setAttribute("class", kind); return made; };
    const line = { group: make("g", "link"), path: make("path", "wire"), flow: make("path", "flow"), label: make("text", "rate") };
    line.group.append(line.path, line.flow, line.label);
    this.svg.append(line.group);
    this.lines.set(key, line);
    return line;
  }

  layLine(line, from, to, frame, down, rate, along) {
    const a = down ? [from.left + from.width / 2, from.bottom] : [from.right, from.top + from.height / 2];
    const b = down ? [to.left + to.width / 2, to.top] : [to.left, to.top + to.height / 2];
    const [x1, y1, x2, y2] = [a[0] - frame.left, a[1] - frame.top, b[0] - frame.left, b[1] - frame.top];
    const half = down ? (y2 - y1) / 2 : (x2 - x1) / 2;
    const path = down ? `M${x1} ${y1}C${x1} ${y1 + half} ${x2} ${y2 - half} ${x2} ${y2}` : `M${x1} ${y1}C${x1 + half} ${y1} ${x2 - half} ${y2} ${x2} ${y2}`;
    if (line.shape !== path) {
      line.shape = path;
      line.path.setAttribute("d", path);
      line.flow.setAttribute("d", path);
    }
    // On the curve above: along it x goes as 1.5 t (1 - t) + t^3, y as 3 t^2 - 2 t^3.
    const x = x1 + (x2 - x1) * (1.5 * along * (1 - along) + along ** 3), y = y1 + (y2 - y1) * (3 * along ** 2 - 2 * along ** 3);
    line.label.setAttribute("x", down ? (x1 + x2) / 2 + 8 : x);
    line.label.setAttribute("y", down ? (y1 + y2) / 2 + 4 : y - 9);
    line.label.setAttribute("text-anchor", down ? "start" : "middle");
    put(line.label, rate === null || rate < 0.05 || (this.quiet && !down) ? "" : text(rate, "rate"));
    const level = rate > 0.05 ? (rate > 300 ? "3" : rate > 30 ? "2" : "1") : "0";
    if (line.group.dataset.level !== level) line.group.dataset.level = level;
  }
}
