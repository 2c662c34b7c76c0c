// The page: one stream of snapshots, and what each of them changes.

import { clock, day, element, parts, put, span, text } from "/static/format.js";
import { Series } from "/static/series.js";
import { Chart, sparkline } from "/static/charts.js";
import { Topology } from "/static/topology.js";
import { Table } from "/static/tables.js";
import { Requests } from "/static/requests.js";
import { Logs } from "/static/logs.js";
import { Timeline } from "/static/timeline.js";
import { Actions } from "/static/actions.js";
import { Replicas } from "/static/replicas.js";
import { Caches } from "/static/caches.js";

const SPARK_S = 60;
const SILENCE_MS = 4000;
const HEALTH = { ok: "healthy", degraded: "degraded", failing: "failing", unknown: "unknown" };
const byId = (id) => document.getElementById(id);

const series = new Series();
const recent = new Series();  // the sparklines keep their minute whatever the range of the charts
const topology = new Topology(byId("topology"));
const requests = new Requests();
const logs = new Logs();
const actions = new Actions();
const replicas = new Replicas(byId("replicas"));
const caches = new Caches(byId("caches"));
let snapshot = null;
let events = [];
let heard = 0;

// --- Colours ------------------------------------------------------------------------------------

let colors = {};
function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = ["blue", "orange", "red", "teal", "violet", "olive", "muted", "grid", "axis", "accent", "good", "doubtful", "bad", "font"];
  colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const THEMES = ["system", "light", "dark"];
const THEME_SIGNS = { system: "◐", light: "☀", dark: "☾" };
function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  put(byId("theme"), THEME_SIGNS[theme]);
  const words = theme === "system" ? "as the system" : theme;
  byId("theme").setAttribute("aria-label", `Theme: ${words}`);
  byId("theme").title = `Theme: ${words}`;
  readColors();
  drawAll();
}
function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3];
  if (theme === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* it lasts as long as the page */ }
  showTheme();
}

// --- Tiles --------------------------------------------------------------------------------------

const TILES = [
  { title: "Requests", unit: "rate", color: "blue", series: "rate", value: (s) => s.traffic.rate, more: (s) => `${Math.round(s.traffic.in_flight)} under way` },
  { title: "Median", unit: "ms", color: "teal", series: "p50", value: (s) => s.traffic.p50, more: (s) => `p95 ${text(s.traffic.p95, "ms")}` },
  { title: "p99", unit: "ms", color: "orange", series: "p99", value: (s) => s.traffic.p99, more: () => "1 in 100 takes longer" },
  { title: "Errors", unit: "rate", color: "red", series: "errors", value: (s) => s.traffic.errors, more: (s) => `${text(s.traffic.error_share, "share")} of requests`, warn: (s) => s.traffic.errors > 0 },
  { title: "CPU", unit: "share", color: "violet", series: "cpu", value: (s) => s.machine?.cpu, more: (s) => s.machine ? `${s.machine.cores.length} cores, load ${s.machine.load.toFixed(1)}` : "", warn: (s) => s.machine?.cpu > 0.9 },
  { title: "Memory", unit: "bytes", color: "olive", series: "memory", value: (s) => s.machine?.memory_used, more: (s) => s.machine ? `of ${text(s.machine.memory_total, "bytes")}` : "", warn: (s) => s.machine?.memory_used > 0.9 * s.machine?.memory_total },
  { title: "Disk", unit: "bytes", color: "muted", series: "disk_used", value: (s) => s.machine ? s.machine.disk_total - s.machine.disk_used : null, more: (s) => s.machine ? `free of ${text(s.machine.disk_total, "bytes")}` : "", warn: (s) => s.machine?.disk_used > 0.9 * s.machine?.disk_total, noLine: true },
];
for (const tile of TILES) {
  tile.figure = element("b"); tile.sign = element("small"); tile.note = element("p"); tile.canvas = element("canvas", { "aria-hidden": "true" });
  tile.root = element("article", { class: "tile" }, element("h2", {}, tile.title), element("p", { class: "big" }, tile.figure, tile.sign), tile.note, tile.noLine ? null : tile.canvas);
  byId("figures").append(tile.root);
}
function showTiles() {
  for (const tile of TILES) {
    const [figure, sign] = parts(tile.value(snapshot), tile.unit);
    put(tile.figure, figure);
    put(tile.sign, sign);
    put(tile.note, tile.more(snapshot));
    tile.root.classList.toggle("warn", Boolean(tile.warn?.(snapshot)));
  }
}
function drawSparks() {
  for (const tile of TILES) if (!tile.noLine) sparkline(tile.canvas, recent.get(tile.series), colors[tile.color]);
}

// --- Charts -------------------------------------------------------------------------------------

const PALETTE = ["blue", "orange", "teal", "violet", "olive", "red"];
const byLength = (a, b) => a.length - b.length || (a < b ? -1 : 1);
const perNode = (kind) => (data) => data.ofKind(kind).sort(byLength).map((name, index) => ({ name, label: name.split(":")[1], color: PALETTE[index % PALETTE.length] }));
const line = (name, label, color, fill) => ({ name, label, color, fill });
const CHARTS = [
  new Chart({ title: "Requests", unit: "rate", hint: "All processes together", lines: () => [line("rate", "answered", "blue", true), line("errors", "errors", "red")] }),
  new Chart({ title: "Latency", unit: "ms", hint: "Over more than one second the worst second is shown", lines: () => [line("p50", "p50", "teal"), line("p95", "p95", "blue"), line("p99", "p99", "orange")] }),
  new Chart({ title: "Requests by server", unit: "rate", hint: "The mean of five seconds", lines: perNode("rate"), several: "rate" }),
  new Chart({ title: "p99 by server", unit: "ms", hint: "Of the last five seconds", lines: perNode("p99"), several: "p99" }),
  new Chart({ title: "Reads by node", unit: "rate", hint: "Read blocks of a database with replicas; the mean of five seconds", lines: perNode("reads"), several: "reads" }),
  new Chart({ title: "Behind the primary", unit: "bytes", hint: "What a replica has not replayed yet", lines: perNode("lag"), some: "lag" }),
  new Chart({ title: "CPU by node", unit: "cores", hint: "100% is one core", lines: perNode("cpu") }),
  new Chart({ title: "Memory by node", unit: "bytes", hint: "What processes share is counted once", lines: perNode("memory") }),
  new Chart({ title: "Database", unit: "rate", hint: "Statements and committed writes a second", lines: () => [line("queries", "queries", "violet", true), line("writes", "writes", "orange")] }),
  new Chart({ title: "Disk", unit: "bytes_rate", hint: "All disks of this machine", lines: () => [line("disk_read", "read", "teal"), line("disk_written", "written", "blue")] }),
];
const timeline = new Timeline(byId("timeline"));
for (const chart of [...CHARTS, timeline]) {
  if (chart !== timeline) byId("charts").append(chart.root);
  const hover = (index) => { for (const each of [...CHARTS, timeline]) each.hover = index; drawCharts(); };
  chart.canvas.addEventListener("pointermove", (event) => hover(chart.indexAt(event, series)));
  chart.canvas.addEventListener("pointerleave", () => hover(null));
  chart.canvas.addEventListener("blur", () => hover(null));
  chart.canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") hover(null);
    if (step === undefined) return;
    event.preventDefault();
    hover(Math.max(0, Math.min(series.length - 1, (chart.hover ?? series.length - 1) + step)));
  });
  new ResizeObserver(() => requestAnimationFrame(drawCharts)).observe(chart.canvas);
}
function drawCharts() {
  if (!series.ready) return;
  const marks = events.filter((event) => !["ready", "in", "draining"].includes(event.kind)).map((event) => ({ at: event.at, bad: ["failed", "restart", "out", "ejected"].includes(event.kind) }));
  byId("charts").classList.toggle("several", series.ofKind("rate").length > 1);
  for (const chart of CHARTS) {
    chart.root.hidden = (Boolean(chart.several) && series.ofKind(chart.several).length < 2) || (Boolean(chart.some) && !series.ofKind(chart.some).length);
    chart.draw(series, colors, marks);
  }
  timeline.draw(series, colors, events, snapshot?.failovers ?? []);
}
function drawAll() { drawSparks(); drawCharts(); }

async function loadSeries() {
  const seconds = Number(document.querySelector('#range [aria-checked="true"]').dataset.seconds);
  try {
    await Promise.all([series.load(seconds), recent.load(SPARK_S)]);
    drawAll();
  } catch { /* comes again with the stream */ }
}

function group(root, attribute, choose) {
  const buttons = [...root.children];
  const select = (button, focus = true) => {
    for (const each of buttons) {
      each.setAttribute(attribute, String(each === button));
      each.tabIndex = each === button ? 0 : -1;
    }
    if (focus) button.focus();
    choose(button);
  };
  root.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) select(button); });
  root.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, Home: -99, End: 99 }[event.key];
    if (!move) return;
    event.preventDefault();
    const index = buttons.indexOf(document.activeElement) + move;
    select(buttons[move === 99 ? buttons.length - 1 : move === -99 ? 0 : (index + buttons.length) % buttons.length]);
  });
  return select;
}
const chooseRange = group(byId("range"), "aria-checked", loadSeries);

// --- Details ------------------------------------------------------------------------------------

const routes = new Table(byId("routes"), {
  caption: "Routes over the last minute", name: (row) => row.route, sort: { key: "rate", down: true },
  empty: "No request within the last minute.",
  columns: [
    { key: "route", title: "Route" }, { key: "methods", title: "Methods", text: (row) => row.methods.join(" ") },
    { key: "rate", title: "Requests", unit: "rate", bar: true }, { key: "p50", title: "Median", unit: "ms" },
    { key: "p95", title: "p95", unit: "ms" }, { key: "p99", title: "p99", unit: "ms" },
    { key: "error_share", title: "Errors", unit: "share", warn: (row) => row.error_share > 0 },
  ],
});
const servers = new Table(byId("servers-table"), {
  caption: "Application servers over the last five seconds", name: (row) => row.name, sort: { key: "order", down: false },
  empty: "No server.",
  columns: [
    { key: "name", title: "Server" }, { key: "said", title: "State", warn: (row) => row.state !== "ready" },
    { key: "share", title: "Share", unit: "share", bar: true }, { key: "rate", title: "Requests", unit: "rate" },
    { key: "p50", title: "Median", unit: "ms" }, { key: "p95", title: "p95", unit: "ms" }, { key: "p99", title: "p99", unit: "ms", bar: true },
    { key: "in_flight", title: "In flight", unit: "count" }, { key: "errors", title: "Errors", unit: "rate", warn: (row) => row.errors > 0 },
    { key: "cpu", title: "CPU", unit: "cores", bar: true },
    { key: "balancer_share", title: "Balancer's share", unit: "share", bar: true }, { key: "weight", title: "Weight", unit: "count" },
  ],
});
function showServers() {
  byId("servers").hidden = snapshot.servers.length < 2 && !snapshot.nodes.some((node) => node.tier === "balancer");
  if (byId("servers").hidden) return;
  const rows = snapshot.servers.map((server, order) => ({
    ...server, order, said: server.state === "ready" && server.balanced ? "healthy" : server.state,
    balancer_share: server.balanced?.share ?? null, weight: server.balanced?.weight ?? null,
  }));
  const serving = rows.filter((row) => row.state === "ready").length;
  put(byId("servers-note"), `${serving} of ${rows.length} serve`);
  servers.show(rows);
}

const queries = new Table(byId("queries"), {
  caption: "Statements over the last minute", name: (row) => `${row.node} ${row.label}`, sort: { key: "busy", down: true },
  empty: "No statement within the last minute.",
  columns: [
    { key: "label", title: "Statement" }, { key: "node", title: "Node" }, { key: "rate", title: "Runs", unit: "rate" },
    { key: "mean", title: "Mean", unit: "ms" }, { key: "p99", title: "p99", unit: "ms" },
    { key: "busy", title: "Busy", unit: "share", bar: true },
  ],
});

function showTab(button) {
  for (const tab of byId("tabs").children) byId(tab.getAttribute("aria-controls")).hidden = tab !== button;
  requests.show(button.id === "tab-requests");
  logs.show(button.id === "tab-logs");
  showDetails();
}
const chooseTab = group(byId("tabs"), "aria-selected", showTab);

function showDetails() {
  if (!snapshot) return;
  if (!byId("routes").hidden) routes.show(snapshot.routes);
  if (!byId("queries").hidden) queries.show(snapshot.queries);
  requests.news(snapshot.requests.newest);
  put(byId("requests-count"), snapshot.requests.failed ? `${snapshot.requests.failed.toLocaleString("en")} failed` : "");
  byId("requests-count").classList.toggle("warn", snapshot.requests.failed > 0);
  logs.tick();
}

async function loadEvents() {
  const newest = events.at(-1)?.id ?? 0;
  if (snapshot.newest_event === newest) return;
  try {
    const after = snapshot.newest_event < newest ? 0 : newest;
    const more = await (await fetch(`/api/events?after=${after}`)).json();
    events = after ? [...events, ...more.filter((event) => event.id > (events.at(-1)?.id ?? 0))].slice(-500) : more;
    showEvents();
  } catch { /* comes again with the next snapshot */ }
}
function showEvents() {
  const rows = [];
  let last = "";
  for (const event of [...events].sort((a, b) => b.at - a.at || b.id - a.id)) {
    if (day(event.at) !== last) rows.push(element("li", { class: "day" }, last = day(event.at)));
    rows.push(element("li", { "data-kind": event.kind }, element("time", {}, clock(event.at)), element("i"), element("span", {}, event.node ? element("b", {}, `${event.node} `) : null, event.text)));
  }
  byId("events-list").replaceChildren(...rows);
}

// --- The stream ---------------------------------------------------------------------------------

function showHead() {
  put(byId("application"), snapshot.application);
  document.title = `${snapshot.application} · Outgrow`;
  put(byId("stage"), `Stage ${snapshot.stage_number} · ${snapshot.stage_title}`);
  put(byId("epoch"), `epoch ${snapshot.epoch} · up ${span(snapshot.at - snapshot.since)}`);
  byId("stage").hidden = byId("epoch").hidden = byId("address").hidden = false;
  put(byId("address"), snapshot.url.replace("http://", ""));
  byId("address").href = snapshot.url;
  const health = byId("health");
  if (health.dataset.status !== snapshot.health.status) health.dataset.status = snapshot.health.status;
  put(health.querySelector("b"), HEALTH[snapshot.health.status]);
  const reasons = snapshot.health.reasons.join("; ");
  byId("notice").hidden = !reasons;
  put(byId("notice"), reasons);
}

function show() {
  if (!snapshot || document.hidden) return;
  showHead();
  showTiles();
  topology.show(snapshot.drawing, snapshot.at);
  showServers();
  replicas.show(snapshot);
  caches.show(snapshot.caches);
  actions.show(snapshot);
  put(byId("topology-note"), snapshot.growth ? growing(snapshot.growth) : snapshot.answers ? "" : "as it was when the supervisor answered last");
  byId("topology-note").classList.toggle("growing", Boolean(snapshot.growth));
  showDetails();
}

function growing({ move, step, event, since, cut_off }) {
  const state = event === "applying" || event === "begun" ? "" : ` ${event}`;
  if (cut_off) return `cut off: ${move}${step ? `, ${step}${state}` : ""}; outgrow status tells how to end it`;
  return `growing: ${move}${step ? `, ${step}${state}` : ""}, for ${span(snapshot.at - since)}`;
}

function live(is) {
  const root = byId("live");
  const state = is ? "yes" : "no";
  if (root.dataset.live === state) return;
  root.dataset.live = state;
  put(root.querySelector("span"), is ? "live" : "reconnecting");
}

function receive(event) {
  const next = JSON.parse(event.data);
  heard = performance.now();
  if (byId("live").dataset.live !== "yes") actions.load();  // another dashboard has another token
  live(true);
  if (next === null) return;
  const gap = snapshot && next.at - snapshot.at > 3;
  snapshot = next;
  if (gap) loadSeries();
  const drawn = series.add(next.at, next.latest), sparked = recent.add(next.at, next.latest);
  requestAnimationFrame(() => {
    show();
    if (!performance.getEntriesByName("figures").length) performance.mark("figures");
    if (document.hidden) return;
    if (sparked) drawSparks();
    if (drawn) drawCharts();
  });
  loadEvents();
}

function connect() {
  const stream = new EventSource("/api/stream");
  stream.onmessage = receive;
  stream.onerror = () => {
    live(false);
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
  };
}

setInterval(() => { if (performance.now() - heard > SILENCE_MS) live(false); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) { loadSeries(); show(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
byId("theme").addEventListener("click", nextTheme);
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tab = byId("tabs").children[Number(event.key) - 1];
  if (tab) chooseTab(tab);
  else if (event.key === "t") nextTheme();
  else if (event.key === "r") {
    const ranges = [...byId("range").children];
    chooseRange(ranges[(ranges.findIndex((each) => each.getAttribute("aria-checked") === "true") + 1) % ranges.length]);
  } else if (event.key === "/") {
    const field = document.querySelector('[role="tabpanel"]:not([hidden]) input[type="search"]');
    if (field) { event.preventDefault(); field.focus(); }
  }
});

showTheme();
loadSeries();
connect();
