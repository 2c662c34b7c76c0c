// What can be done from here: each asks first, is sent with this page's token, and tells how it went.

import { element, put, span } from "/static/format.js";

const byId = (id) => document.getElementById(id);

export class Actions {
  constructor() {
    this.may = null;
    this.asked = false;
    this.fewer = this.button("−", "One application server fewer", () => this.scale(-1));
    this.more = this.button("+", "One application server more", () => this.scale(1));
    this.drills = element("select", { id: "drills", "aria-label": "Drill" });
    this.run = element("button", { type: "button", class: "run" }, "Run drill");
    this.run.addEventListener("click", () => this.drill());
    byId("actions").append(this.drills, this.run, this.fewer, this.more);
    this.load();
  }

  button(sign, says, act) {
    const made = element("button", { type: "button", class: "icon", title: says, "aria-label": says }, sign);
    made.addEventListener("click", act);
    return made;
  }

  // What this page may do, and the token for it: anew when a dashboard has been started again.
  async load() {
    try {
      const answer = await fetch("/api/actions");
      this.may = answer.ok ? await answer.json() : null;
    } catch { this.may = null; }
    this.drills.replaceChildren(...(this.may?.drills ?? []).map((drill) => element("option", { value: drill.name, title: drill.does }, drill.name)));
  }

  show(snapshot) {
    this.servers = snapshot.servers.filter((server) => server.name.startsWith("app-"));
    const balanced = snapshot.nodes.some((node) => node.tier === "balancer");
    const busy = snapshot.action !== null && snapshot.action.outcome === "running" || snapshot.growth !== null;
    byId("actions").hidden = !balanced || !this.may?.allowed;
    const count = this.servers.length;
    this.fewer.disabled = busy || count <= 1;
    this.more.disabled = this.run.disabled = this.drills.disabled = busy;
    this.showOutcome(snapshot.action, snapshot.at);
  }

  showOutcome(action, now) {
    const old = action !== null && action.ended !== null && now - action.ended > 60;
    byId("outcome").hidden = (action === null || old) && !this.refused;
    if (this.refused) {
      byId("outcome").dataset.outcome = "failed";
      put(byId("outcome"), this.refused);
    } else if (action !== null) {
      byId("outcome").dataset.outcome = action.outcome;
      const took = span((action.ended ?? now) - action.began);
      const said = action.outcome === "running" ? `for ${took}` : `${action.outcome} after ${took}`;
      put(byId("outcome"), `${action.says}: ${said}${action.line ? `. ${action.line}` : ""}`);
    }
  }

  async scale(step) {
    const count = this.servers.length, wanted = count + step;
    const yes = await this.confirm(step > 0 ? {
      title: `Add an application server?`,
      text: `The fleet goes from ${count} to ${wanted} servers. The new one gets requests when it is ready, no request fails, and outgrow.toml says ${wanted} from then on.`,
      yes: "Add a server",
    } : {
      title: `Remove an application server?`,
      text: `The fleet goes from ${count} to ${wanted} ${wanted === 1 ? "server" : "servers"}. The last one gets no new request, finishes what it has begun, and ends. outgrow.toml says ${wanted} from then on.`,
      yes: "Remove a server",
    });
    if (yes) await this.send("/api/scale", { servers: wanted });
  }

  async drill() {
    const drill = this.may.drills.find((each) => each.name === this.drills.value);
    const yes = await this.confirm({
      title: `Run the drill ${drill.name}?`,
      text: `It hurts what runs, under load of its own: ${drill.does}. It needs ${drill.needs}. What it has done is undone at its end; users of this fleet may notice.`,
      yes: "Hurt it",
    });
    if (yes) await this.send("/api/drill", { name: drill.name });
  }

  confirm({ title, text, yes }) {
    const dialog = byId("confirm");
    put(byId("confirm-title"), title);
    put(byId("confirm-text"), text);
    put(byId("confirm-yes"), yes);
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
  }

  async send(path, what) {
    this.refused = "";
    this.fewer.disabled = this.more.disabled = this.run.disabled = true;  // until the next snapshot says how it is
    try {
      const headers = { "content-type": "application/json", "outgrow-token": this.may.token };
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(what) });
      if (!answer.ok) this.refuse(await answer.text());
    } catch { this.refuse("The dashboard does not answer."); }
  }

  refuse(why) {
    this.refused = why;
    setTimeout(() => { this.refused = ""; }, 15000);
  }
}
