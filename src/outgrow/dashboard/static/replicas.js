// The nodes of a database with replicas, where reads go and why, and each failover in its phases.

import { clock, element, put, text } from "/static/format.js";
import { Table } from "/static/tables.js";

const PHASES = ["detection", "election", "promotion", "reconfiguration", "recovery"];
const AWAY = 3;  // so many of them pass before writes are accepted again
const SHOWN_MAX = 5;
const REASONS = {
  fresh: "far enough", strong: "asked for", pinned: "wrote lately", behind: "no replica as far", moved: "its replica is gone",
  "primary-run": "read there before", "no-replica": "no replica",
};

export class Replicas {
  constructor(root) {
    this.root = root;
    this.note = root.querySelector("#replicas-note");
    this.list = root.querySelector("#failovers");
    this.shown = "";
    this.table = new Table(root.querySelector("#replicas-table"), {
      caption: "Nodes of the database over the last five seconds", name: (row) => row.name, sort: { key: "order", down: false },
      empty: "No node.",
      columns: [
        { key: "name", title: "Node" }, { key: "role", title: "Role", text: (row) => row.role || row.state, warn: (row) => !row.role },
        { key: "timeline", title: "Timeline", unit: "count" }, { key: "lag", title: "Behind", unit: "bytes", bar: true },
        { key: "reads", title: "Reads", unit: "rate" }, { key: "share", title: "Share", unit: "share", bar: true },
        { key: "reasons", title: "Why there", text: (row) => why(row.reasons) },
      ],
    });
  }

  show(snapshot) {
    this.root.hidden = !snapshot.replicas.length;
    if (this.root.hidden) return;
    this.table.show(snapshot.replicas.map((each, order) => ({ ...each, order })));
    const serving = snapshot.replicas.filter((each) => each.role && each.role !== "primary").length;
    const primary = snapshot.replicas.find((each) => each.role === "primary");
    put(this.note, `${primary ? primary.name : "nobody"} takes writes, ${serving} ${serving === 1 ? "replica" : "replicas"}`);
    this.showFailovers(snapshot.failovers);
  }

  showFailovers(failovers) {
    const told = JSON.stringify(failovers);
    if (told === this.shown) return;
    this.shown = told;
    this.list.hidden = !failovers.length;
    this.list.replaceChildren(...failovers.slice(-SHOWN_MAX).reverse().map(failover));
  }
}

// Each phase as long as it took.
function failover({ began, before, after, reason, planned, phases }) {
  const passed = PHASES.filter((name) => name in phases);
  const said = (name) => `${name} ${phases[name].toFixed(2)} s`;
  const away = passed.length < AWAY ? null : passed.slice(0, AWAY).reduce((sum, name) => sum + phases[name], 0);
  const bars = passed.map((name) => {
    const bar = element("i", { "data-phase": name, title: said(name) });
    bar.style.flexGrow = String(Math.max(phases[name], 0.01));
    return bar;
  });
  const keys = passed.map((name) => element("span", { class: "key" }, element("i", { "data-phase": name }), said(name)));
  return element("li", {},
    element("p", {}, element("time", {}, clock(began)), element("b", {}, `${before} → ${after || "?"}`),
      element("span", { class: "note" }, planned ? "switchover" : reason),
      element("span", { class: "away" }, away === null ? "under way" : `writes were away for ${away.toFixed(2)} s`)),
    element("div", { class: "phases", role: "img", "aria-label": passed.map(said).join(", ") }, ...bars),
    element("div", { class: "legend" }, ...keys));
}

function why(reasons) {
  return Object.entries(reasons).sort((a, b) => b[1] - a[1]).map(([reason, rate]) => `${REASONS[reason] ?? reason} ${text(rate, "rate")}`).join(", ");
}
