// The series of the chosen range: fetched once, then continued from the snapshots.
//
// A value stands for `step` seconds. The step under way is collected and added when it is complete, as the
// mean, or for some as the highest, which is how the server does it.

const WORST = new Set(["p50", "p95", "p99", "query_p99", "wait_p99", "errors"]);
const isWorst = (name) => WORST.has(name) || name.startsWith("p99:") || name.startsWith("state:");

export class Series {
  constructor() {
    this.seconds = 300;
    this.step = 1;
    this.since = 0;
    this.length = 300;
    this.values = new Map();
    this.collected = [];
    this.backlog = [];
    this.ready = false;
  }

  async load(seconds) {
    this.seconds = seconds;
    this.ready = false;
    const answer = await fetch(`/api/history?seconds=${seconds}`);
    const curves = await answer.json();
    if (seconds !== this.seconds) return;  // another range was chosen meanwhile
    this.since = curves.since;
    this.step = curves.step_s;
    this.length = Math.ceil(seconds / this.step);
    this.values = new Map(Object.entries(curves.series).map(([name, values]) => [name, values.slice(-this.length)]));
    this.since += this.step * Math.max(0, (Object.values(curves.series)[0]?.length ?? 0) - this.length);
    this.collected = [];
    this.ready = true;
    const end = this.since + this.step * Math.max(0, ...[...this.values.values()].map((values) => values.length));
    for (const each of this.backlog) if (each.at >= end) this.add(each.at, each.latest, false);
  }

  // The newest values, of the second `at`. Returns whether a point was added.
  add(at, latest, fresh = true) {
    if (fresh) this.backlog = [...this.backlog.slice(-9), { at, latest }];  // what comes while the rest is fetched
    if (!this.ready) return false;
    const step = Math.floor(at / this.step) * this.step;
    const current = this.collected.length ? this.collected[0].step : step;
    let added = false;
    if (step !== current) {
      this.complete(current);
      added = true;
    }
    this.collected.push({ step, latest });
    if (this.step === 1) {
      this.complete(step);
      added = true;
    }
    return added;
  }

  complete(step) {
    const moments = this.collected.map((each) => each.latest);
    this.collected = [];
    const names = new Set([...this.values.keys(), ...moments.flatMap((each) => Object.keys(each))]);
    const index = Math.round((step - this.since) / this.step);
    if (index < 0) return;
    const shift = Math.max(0, index + 1 - this.length);
    for (const name of names) {
      const values = this.values.get(name) ?? [];
      const known = moments.map((each) => each[name]).filter((value) => value !== undefined);
      while (values.length < index) values.push(null);
      values[index] = !known.length ? values[index] ?? null
        : isWorst(name) ? Math.max(...known) : known.reduce((a, b) => a + b) / known.length;
      if (shift) values.splice(0, shift);
      this.values.set(name, values);
    }
    this.since += shift * this.step;
  }

  get(name) { return this.values.get(name) ?? []; }

  // Names like "cpu:app" of one kind, those with any value in the range.
  ofKind(kind) {
    const prefix = kind + ":";
    return [...this.values.keys()]
      .filter((name) => name.startsWith(prefix) && this.get(name).some((value) => value !== null))
      .sort();
  }

  get until() { return this.since + this.length * this.step; }
}
