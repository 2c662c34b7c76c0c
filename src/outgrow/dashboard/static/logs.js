// The logs as a live tail: asked for once a second while they are in sight.

import { clock, element, put } from "/static/format.js";

const LINES_MAX = 1000;
const KNOWN = new Set(["ts", "level", "logger", "message", "trace_id", "span_id", "exception", "stack"]);

export class Logs {
  constructor() {
    const find = (id) => document.getElementById(`logs-${id}`);
    this.lines = find("lines"); this.node = find("node"); this.search = find("search");
    this.access = find("access"); this.follow = find("follow"); this.note = find("note");
    this.cursor = {};
    this.version = 0;
    this.visible = false;
    let timer;
    this.search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => this.restart(), 150); });
    for (const each of [this.node, this.access]) each.addEventListener("change", () => this.restart());
    this.lines.addEventListener("scroll", () => {
      const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 40;
      if (this.follow.checked !== atEnd) this.follow.checked = atEnd;
    }, { passive: true });
    this.follow.addEventListener("change", () => { if (this.follow.checked) this.toEnd(); });
  }

  show(visible) {
    this.visible = visible;
    if (visible) this.tick().then(() => this.follow.checked && this.toEnd());
  }

  restart() {
    this.version += 1;
    this.cursor = {};
    this.lines.replaceChildren();
    this.asking = false;
    this.follow.checked = true;
    this.tick();
  }

  async tick() {
    if (!this.visible || this.asking) return;
    this.asking = true;
    const version = this.version;
    const first = !Object.keys(this.cursor).length;
    try {
      const query = new URLSearchParams({ cursor: JSON.stringify(this.cursor), node: this.node.value, search: this.search.value, access: this.access.checked ? "1" : "0" });
      const tail = await (await fetch(`/api/logs?${query}`)).json();
      if (version !== this.version) return;
      this.cursor = tail.cursor;
      this.offer(tail.nodes);
      this.add(tail.lines, tail.skipped && !first ? tail.skipped : 0);
    } catch { /* the stream tells that the dashboard is away */ } finally {
      if (version === this.version) this.asking = false;
    }
  }

  offer(nodes) {
    const known = [...this.node.options].slice(1).map((option) => option.value);
    if (known.join() === nodes.join()) return;
    const chosen = this.node.value;
    this.node.replaceChildren(this.node.options[0], ...nodes.map((node) => element("option", { value: node }, node)));
    this.node.value = nodes.includes(chosen) ? chosen : "";
  }

  add(lines, skipped) {
    const following = this.follow.checked;
    const made = document.createDocumentFragment();
    if (skipped) made.append(element("li", { class: "skipped" }, `${skipped.toLocaleString("en")} lines did not fit in`));
    for (const [node, line] of lines) made.append(this.line(node, line));
    this.lines.append(made);
    let excess = this.lines.childElementCount - LINES_MAX;
    while (excess-- > 0) this.lines.firstElementChild.remove();
    put(this.note, this.lines.childElementCount ? "" : "No line yet.");
    if (following && lines.length) this.toEnd();
  }

  toEnd() { this.lines.scrollTop = this.lines.scrollHeight; }

  line(node, raw) {
    const record = parsed(raw);
    const level = record?.level ?? (/\b(ERROR|FATAL|PANIC|Traceback)\b/.test(raw) ? "error" : /\bWARNING\b/.test(raw) ? "warning" : "info");
    const at = record?.ts ? clock(Date.parse(record.ts) / 1000) : raw.match(/^\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d)/)?.[1] ?? "";
    const message = record ? `${record.message ?? ""}${record.exception ? "\n" + record.exception : ""}` : raw.replace(/^\d{4}-\d\d-\d\d [\d:.]+ \w+ /, "");
    const more = record ? Object.entries(record).filter(([key]) => !KNOWN.has(key)).map(([key, value]) => `${key}=${value}`).join(" ") : "";
    return element("li", { "data-level": level },
      element("time", {}, at), element("span", { class: "node" }, node),
      element("span", { class: "message" }, message, more ? element("small", {}, ` ${more}`) : null));
  }
}

function parsed(raw) {
  if (!raw.startsWith("{")) return null;
  try { return JSON.parse(raw); } catch { return null; }
}
