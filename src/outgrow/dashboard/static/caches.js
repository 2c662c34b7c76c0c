// What the caches of all processes are worth: hit rates by prefix, and the keys that are read most.

import { put, text } from "/static/format.js";
import { Table } from "/static/tables.js";

export class Caches {
  constructor(root) {
    this.root = root;
    this.note = root.querySelector("#caches-note");
    this.prefixes = new Table(root.querySelector("#caches-prefixes"), {
      caption: "Reads of the caches by key prefix over the last minute", name: (row) => row.prefix, sort: { key: "rate", down: true },
      empty: "No read within the last minute.",
      columns: [
        { key: "prefix", title: "Prefix" }, { key: "rate", title: "Reads", unit: "rate", bar: true },
        { key: "hit_rate", title: "Hit rate", unit: "share", warn: (row) => row.rate >= 1 && row.hit_rate < 0.9 },
        { key: "shared", title: "Redis", unit: "rate" }, { key: "sessions", title: "Passed", unit: "rate" },
        { key: "loads", title: "Loads", unit: "rate" }, { key: "load_ms", title: "Mean load", unit: "ms" },
      ],
    });
    this.keys = new Table(root.querySelector("#caches-keys"), {
      caption: "Keys that are read most now", name: (row) => row.key, sort: { key: "rate", down: true }, empty: "No key is known yet.",
      columns: [
        { key: "key", title: "Key" },
        { key: "rate", title: "Reads", unit: "rate", bar: true }, { key: "share", title: "Share", unit: "share" },
        { key: "kept", title: "Kept", text: (row) => row.kept ? `in ${row.kept} ${row.kept === 1 ? "process" : "processes"}` : "" },
      ],
    });
  }

  show(caches) {
    this.root.hidden = !caches;
    if (!caches) return;
    put(this.note, said(caches));
    this.prefixes.show(caches.prefixes);
    this.keys.show(caches.keys);
  }
}

function said({ hit_rate, entries, bytes, evicted, server_bytes, server_bytes_max }) {
  const shared = server_bytes === null ? "" : `, ${text(server_bytes, "bytes")} of ${text(server_bytes_max, "bytes")} in Redis`;
  const gone = evicted ? `, ${text(evicted, "rate")} have to go` : "";
  return `${text(hit_rate, "share")} hits; ${text(entries, "count")} ${entries === 1 ? "entry" : "entries"}, about ${text(bytes, "bytes")} in processes${shared}${gone}`;
}
