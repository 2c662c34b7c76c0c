// Tables of figures whose rows stay where they are while the figures change: sorted by what was clicked.

import { element, put, text } from "/static/format.js";

export class Table {
  // `columns`: {key, title, unit?, text?, bar?, warn?}. `name` of a row makes it the same row next time.
  constructor(root, { caption, columns, name, sort, empty }) {
    this.columns = columns;
    this.name = name;
    this.sort = sort;
    this.body = element("tbody");
    this.heads = columns.map((column) => {
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.choose(column.key));
      return element("th", { scope: "col", class: column.unit ? "figure" : "" }, button);
    });
    this.empty = element("p", { class: "empty" }, empty);
    this.table = element("table", {}, element("caption", { class: "unseen" }, caption), element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    root.append(element("div", { class: "scroll" }, this.table), this.empty);
    this.rows = new Map();
    this.data = [];
  }

  choose(key) {
    this.sort = { key, down: this.sort.key === key ? !this.sort.down : Boolean(this.columns.find((each) => each.key === key).unit) };
    this.show(this.data);
  }

  show(data) {
    this.data = data;
    this.empty.hidden = data.length > 0;
    this.table.hidden = !data.length;
    const { key, down } = this.sort;
    const order = [...data].sort((a, b) => compare(a[key], b[key]) * (down ? -1 : 1));
    this.columns.forEach((column, index) => {
      this.heads[index].setAttribute("aria-sort", column.key !== key ? "none" : down ? "descending" : "ascending");
    });
    const most = new Map(this.columns.filter((each) => each.bar).map((each) => [each.key, Math.max(...data.map((row) => row[each.key] ?? 0), 1e-9)]));
    const seen = new Set();
    order.forEach((entry, position) => {
      const name = this.name(entry);
      seen.add(name);
      let row = this.rows.get(name);
      if (!row) this.rows.set(name, row = this.makeRow());
      if (this.body.children[position] !== row.root) this.body.insertBefore(row.root, this.body.children[position] ?? null);
      this.columns.forEach((column, index) => this.fill(row.cells[index], column, entry, most));
    });
    for (const [name, row] of this.rows) if (!seen.has(name)) { row.root.remove(); this.rows.delete(name); }
  }

  makeRow() {
    const cells = this.columns.map((column) => {
      const value = element("span");
      const bar = column.bar ? element("i", { class: "bar" }) : null;
      return { value, bar, root: element("td", { class: column.unit ? "figure" : "name" }, bar, value) };
    });
    return { cells, root: element("tr", {}, ...cells.map((cell) => cell.root)) };
  }

  fill(cell, column, entry, most) {
    const value = entry[column.key];
    put(cell.value, column.text ? column.text(entry) : text(value, column.unit));
    if (cell.bar) cell.bar.style.width = `${Math.round((100 * (value ?? 0)) / most.get(column.key))}%`;
    if (column.warn) cell.root.classList.toggle("warn", column.warn(entry));
  }
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return a < b ? -1 : 1;
}
