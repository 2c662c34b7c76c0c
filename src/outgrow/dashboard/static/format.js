// Figures as people read them. What is unknown is a dash.

export const NONE = "–";

const digits = (value, count) => value.toLocaleString("en", { maximumFractionDigits: count, minimumFractionDigits: count });

function number(value) {
  if (value >= 100000) return digits(value / 1000, 0) + "k";
  if (value >= 10000) return digits(value / 1000, 1) + "k";
  if (value >= 100) return digits(value, 0);
  if (value >= 10) return digits(value, value % 1 < 0.05 || value % 1 > 0.95 ? 0 : 1);
  return value === 0 ? "0" : digits(value, value < 0.1 ? 2 : 1);
}

function milliseconds(value) {
  if (value >= 10000) return [digits(value / 1000, 0), "s"];
  if (value >= 1000) return [digits(value / 1000, 2), "s"];
  if (value >= 100) return [digits(value, 0), "ms"];
  if (value >= 10) return [digits(value, 1), "ms"];
  return [value === 0 ? "0" : digits(value, 2), "ms"];
}

function bytes(value) {
  for (const [size, unit] of [[2 ** 40, "TB"], [2 ** 30, "GB"], [2 ** 20, "MB"], [2 ** 10, "kB"]]) {
    if (value >= size) return [digits(value / size, value / size < 10 ? 1 : 0), unit];
  }
  return [digits(value, 0), "B"];
}

function percent(value) {
  const share = value * 100;
  return [share === 0 ? "0" : digits(share, share < 0.095 ? 2 : share < 9.95 ? 1 : 0), "%"];
}

// [figure, unit]
export function parts(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return [NONE, ""];
  if (unit === "rate") return [number(value), "/s"];
  if (unit === "ms") return milliseconds(value);
  if (unit === "bytes") return bytes(value);
  if (unit === "bytes_rate") { const [text, size] = bytes(value); return [text, size + "/s"]; }
  if (unit === "share" || unit === "cores") return percent(value);
  return [digits(value, 0), ""];
}

export function text(value, unit) {
  const [figure, sign] = parts(value, unit);
  return sign === "%" || sign === "/s" || !sign ? figure + sign : `${figure} ${sign}`;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

const two = (value) => String(value).padStart(2, "0");

export function clock(at, withSeconds = true) {
  const date = new Date(at * 1000);
  return `${two(date.getHours())}:${two(date.getMinutes())}${withSeconds ? ":" + two(date.getSeconds()) : ""}`;
}

export function day(at) {
  const date = new Date(at * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

// An element with attributes and children; text is never markup.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Touch the page only where something has changed.
export function put(target, value) {
  if (target.textContent !== value) target.textContent = value;
}
