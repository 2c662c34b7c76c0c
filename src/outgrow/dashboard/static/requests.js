// Slow and failed requests: a list of up to 10,000 of which only what is seen is in the page, and the
// parts of the chosen one as a waterfall.

import { clock, day, element, put, text } from "/static/format.js";

const ROW = 34, PAGE = 100, AHEAD = 6;
const KINDS = { query: "query", transaction: "transaction", wait: "wait for a", load: "cache load:" };

export class Requests {
  constructor() {
    const find = (id) => document.getElementById(`requests-${id}`);
    this.list = find("list"); this.detail = find("detail"); this.note = find("note");
    this.search = find("search"); this.reason = find("reason"); this.order = find("order"); this.fresh = find("new");
    this.space = this.list.firstElementChild;
    this.rows = new Map();
    this.pages = new Map();
    this.waiting = new Set();
    this.total = 0;
    this.upto = 0;
    this.newest = 0;
    this.version = 0;
    this.active = -1;
    this.chosen = null;
    this.visible = false;
    this.list.addEventListener("scroll", () => this.render(), { passive: true });
    this.list.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(this.list);
    let timer;
    this.search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => this.reload(), 150); });
    for (const each of [this.reason, this.order]) each.addEventListener("change", () => this.reload());
    this.fresh.addEventListener("click", () => { this.list.scrollTop = 0; this.reload(); });
    this.explain();
  }

  // A snapshot has come: at the top of the list new ones appear, further down they wait.
  news(newest) {
    if (newest < this.newest) { this.upto = 0; this.pages.clear(); }  // the dashboard was restarted
    this.newest = newest;
    if (!this.visible || newest === this.upto) { this.offer(); return; }
    const still = this.list.scrollTop > ROW || this.order.value !== "newest" || this.active > 0 || this.busy;
    if (this.upto && still) this.offer(); else this.reload(true);
  }

  offer() {
    const count = this.newest - this.upto;
    this.fresh.hidden = !this.visible || count <= 0;
    if (!this.fresh.hidden) put(this.fresh, count === 1 ? "1 new" : `${count.toLocaleString("en")} new`);
  }

  show(visible) {
    this.visible = visible;
    if (visible) this.reload(this.upto > 0);
  }

  async reload(quietly = false) {
    this.version += 1;
    if (!quietly) { this.active = -1; this.list.scrollTop = 0; }
    this.upto = 0;
    await this.fetch(0, this.version);
    this.offer();
  }

  query(page) {
    return new URLSearchParams({
      reason: this.reason.value, search: this.search.value, order: this.order.value,
      upto: this.upto, offset: page * PAGE, limit: PAGE,
    });
  }

  async fetch(page, version) {
    if (this.waiting.has(`${version} ${page}`)) return;
    this.waiting.add(`${version} ${page}`);
    try {
      const answer = await (await fetch(`/api/requests?${this.query(page)}`)).json();
      if (version !== this.version) return;
      if (!this.upto) { this.upto = answer.newest; this.pages.clear(); }
      this.total = answer.total;
      this.pages.set(page, answer.requests);
      if (this.pages.size > 30) this.pages.delete(this.pages.keys().next().value);
      this.space.style.height = `${this.total * ROW}px`;
      const one = this.total === 1;
      put(this.note, this.total ? `${this.total.toLocaleString("en")} request${one ? "" : "s"}` : "None. Requests that fail or are slow appear here.");
      this.render();
    } catch { /* the stream tells that the dashboard is away */ } finally {
      this.waiting.delete(`${version} ${page}`);
    }
  }

  at(index) { return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE]; }

  render() {
    if (!this.visible) return;
    const height = this.list.clientHeight;
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - AHEAD);
    const last = Math.min(this.total, Math.ceil((this.list.scrollTop + height) / ROW) + AHEAD);
    for (const [index, row] of this.rows) {
      if (index < first || index >= last) { row.root.remove(); this.rows.delete(index); }
    }
    for (let index = first; index < last; index++) this.renderRow(index);
    for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) if (!this.pages.has(page)) this.fetch(page, this.version);
  }

  renderRow(index) {
    const request = this.at(index);
    let row = this.rows.get(index);
    if (!row) {
      row = { time: element("span", { class: "time" }), method: element("span", { class: "method" }), path: element("span", { class: "path" }), status: element("span", { class: "status" }), ms: element("span", { class: "ms" }) };
      row.root = element("div", { class: "row", role: "option", id: `request-${index}` }, row.time, row.method, row.path, row.status, row.ms);
      row.root.style.transform = `translateY(${index * ROW}px)`;
      row.root.addEventListener("click", () => { this.list.focus({ preventScroll: true }); this.choose(index); });
      this.rows.set(index, row);
      this.space.append(row.root);
    }
    row.root.setAttribute("aria-selected", String(index === this.active));
    row.root.setAttribute("aria-posinset", index + 1);
    row.root.setAttribute("aria-setsize", this.total);
    if (row.request === request) return;
    row.request = request;
    if (!request) { for (const each of [row.time, row.method, row.path, row.status, row.ms]) each.textContent = ""; return; }
    row.root.dataset.reason = request.reason;
    put(row.time, clock(request.at));
    put(row.method, request.method);
    put(row.path, request.path);
    put(row.status, request.status ? String(request.status) : request.error);
    put(row.ms, text(request.ms, "ms"));
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.total) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.total - 1, this.active + moves[event.key])));
  }

  async choose(index) {
    this.active = index;
    const top = index * ROW;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    if (top + ROW > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + ROW - this.list.clientHeight;
    this.render();
    this.list.setAttribute("aria-activedescendant", `request-${index}`);
    if (!this.at(index)) await this.fetch(Math.floor(index / PAGE), this.version);
    if (this.active === index && this.at(index)) this.tell(this.at(index));
  }

  explain() {
    this.detail.replaceChildren(element("p", { class: "empty" }, "Choose a request to see where its time went."));
  }

  tell(request) {
    const facts = [
      ["Answered", request.status ? `${request.status}${request.error ? ` (${request.error})` : ""}` : request.error],
      ["Took", text(request.ms, "ms")], ["At", `${day(request.at)} ${clock(request.at)}`], ["Node", request.node],
      ["Route", request.route], ["Trace", request.trace_id],
    ];
    const list = element("dl", { class: "facts" });
    for (const [name, value] of facts) if (value) list.append(element("div", {}, element("dt", {}, name), element("dd", {}, String(value))));
    this.detail.replaceChildren(
      element("h3", {}, `${request.method} ${request.path}`), list, this.waterfall(request));
    this.detail.scrollTop = 0;
  }

  waterfall(request) {
    const whole = Math.max(request.ms, ...request.spans.map(([, , , after, took]) => (after + took) / 1000));
    const list = element("ol", { class: "waterfall", "aria-label": "Its parts in the order of time" });
    list.append(this.bar("request", "the whole request", "", 0, request.ms, whole, null));
    const spans = [...request.spans].sort((a, b) => a[3] - b[3]);
    for (const [kind, name, node, after, took, error] of spans) list.append(this.bar(kind, `${KINDS[kind] ?? kind} ${name}`, node, after / 1000, took / 1000, whole, error));
    const inParts = element("p", { class: "note" }, spans.length ? summary(spans, request.ms) : "No statement, no wait, no cache load: all of its time was spent in the code.");
    return element("div", {}, list, inParts);
  }

  bar(kind, title, node, after, took, whole, error) {
    const bar = element("i", { class: "span", "data-kind": kind });
    bar.style.left = `${(100 * after) / whole}%`;
    bar.style.width = `${Math.max(0.4, (100 * took) / whole)}%`;
    return element("li", { class: error ? "failed" : "" },
      element("span", { class: "what" }, title, node ? element("small", {}, ` on ${node}`) : null, error ? element("small", { class: "why" }, ` ${error}`) : null),
      element("span", { class: "track" }, bar), element("span", { class: "took" }, text(took, "ms")));
  }
}

function summary(spans, ms) {
  const queries = spans.filter(([kind]) => kind === "query");
  const time = queries.reduce((sum, span) => sum + span[4], 0) / 1000;
  const count = queries.length === 1 ? "1 statement" : `${queries.length} statements`;
  return `${count} in ${text(time, "ms")}, ${text(Math.min(1, time / Math.max(ms, 0.001)), "share")} of its time.`;
}
