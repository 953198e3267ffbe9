// /ui/images and /ui/services: what there is to boot, and how the server is.
import { html, useEffect } from "./vendor/pages.js";
import { follow, isReady, rowsOf } from "./live.js";
import { Table } from "./table.js";

export function size(octets) {
  if (octets === null || octets === undefined) return "–";
  const power = Math.min(4, Math.max(0, Math.floor(Math.log2(octets || 1) / 10)));
  return `${(octets / 1024 ** power).toFixed(power ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

const moment = (value) => (value ? new Date(value * 1000).toLocaleString() : null);

const IMAGES = [
  { name: "name", label: "Image", head: true, text: (row) => row.name, cell: (row) => html`<span class="text">${row.name}</span>` },
  { name: "user", label: "Owner", text: (row) => row.user },
  { name: "used", label: "Booted by nodes", text: (row) => (row.in_use ? "yes" : "no") },
  { name: "size", label: "Size", number: true, order: (row) => row.size, text: (row) => size(row.size) },
  { name: "created", label: "Created", order: (row) => row.created, text: (row) => moment(row.created) },
  { name: "models", label: "Models", text: (row) => row.compatibility.join(", ") },
];

// Components with the same properties are not painted anew: tables get a map of their own.
export function Images() {
  useEffect(() => follow("images"), []);
  return html`<h1>Images</h1><${Table} rows=${new Map(rowsOf("images"))} columns=${IMAGES} label="Images"
    empty=${isReady("images") ? "There is no such image." : "Loading…"} />`;
}

function Simple({ rows, columns, label, empty }) {
  if (!rows.length) return html`<p class="faint">${empty}</p>`;
  return html`<div class="scroll"><table aria-label=${label}><thead><tr>${columns.map(([title]) => html`<th scope="col">${title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${columns.map(([, value], at) => html`<${at ? "td" : "th"} scope=${at ? null : "row"} class="text">${value(row) ?? "–"}<//>`)}</tr>`)}</tbody></table></div>`;
}

export function Services() {
  useEffect(() => follow("services", "workflows", "disks"), []);
  const rows = (name) => [...rowsOf(name).values()];
  return html`<h1>Services</h1>
    <h2>Daemons and database</h2>
    <${Simple} label="Daemons" rows=${rows("services")} empty="Loading…" columns=${[
      ["Name", (row) => row.name], ["State", (row) => html`<span class=${row.state === "running" ? "state booted" : "state failed"}>${row.state === "running" ? "● " : "✕ "}${row.state}</span>`],
      ["Process", (row) => row.pid], ["Restarts", (row) => row.restarts], ["Last trouble", (row) => row.trouble], ["When", (row) => moment(row.trouble_time)],
    ]} />
    <h2>What the server is doing</h2>
    <${Simple} label="Workflows" rows=${rows("workflows")} empty="No workflow is running." columns=${[
      ["Name", (row) => row.name], ["Step", (row) => row.step], ["Since", (row) => `${row.age} s`], ["Step since", (row) => `${row.step_age} s`], ["Then", (row) => row.remaining.join(", ")],
    ]} />
    <h2>Disks</h2>
    <${Simple} label="Disks" rows=${rows("disks")} empty="Loading…" columns=${[
      ["Place", (row) => row.place], ["Path", (row) => row.path], ["Size", (row) => size(row.size)], ["Free", (row) => `${size(row.free)} (${Math.round((100 * row.free) / row.size)} %)`],
    ]} />`;
}
