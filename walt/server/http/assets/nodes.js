// /ui/nodes: who uses which node, and how it is.
import { html, signal, useEffect } from "./vendor/pages.js";
import { follow, isReady, rowsOf } from "./live.js";
import { setQuery, where } from "./route.js";
import { Table } from "./table.js";
import * as deeds from "./deeds.js";

const SIGNS = { booted: "●", booting: "◐", failed: "✕", off: "○" };
const chosen = signal(new Set());

export function stateText(row) {
  if (row.powersave) return "off (saves power)";
  return row.state === "booting" && row.stage ? `booting: ${row.stage}` : row.state;
}

export function State({ row }) {
  const why = row.trouble ?? row.failure;
  return html`<span class=${`state ${row.state}`} title=${why}><span aria-hidden="true">${SIGNS[row.state]} </span>${stateText(row)}</span>${why && html` <span class="trouble">${why}</span>`}`;
}

export function address(name) {
  return `/ui/nodes/${encodeURIComponent(name)}`;
}

const COLUMNS = [
  { name: "name", label: "Node", head: true, text: (row) => row.name, cell: (row) => html`<a class="text" href=${address(row.name)}>${row.name}</a>` },
  { name: "state", label: "State", text: stateText, cell: (row) => html`<${State} row=${row} />`, title: (row) => row.trouble ?? row.failure },
  { name: "owner", label: "Owner", text: (row) => row.owner ?? "free", cell: (row) => html`<span class=${row.owner ? "text" : "faint"}>${row.owner ?? "free"}</span>${row.reserved_by && html` <span class="faint">(reserved by ${row.reserved_by})</span>`}` },
  { name: "image", label: "Image", text: (row) => row.image_name, title: (row) => row.image_name },
  { name: "model", label: "Model", text: (row) => row.model },
  { name: "type", label: "Type", text: (row) => row.type },
  { name: "ip", label: "Address", text: (row) => row.ip },
  { name: "place", label: "Switch and port", text: (row) => (row.switch ? `${row.switch} ${row.port ?? ""}` : null) },
];

const FILTERS = [
  ["state", "State", (row) => row.state], ["owner", "Owner", (row) => row.owner ?? "free"],
  ["model", "Model", (row) => row.model], ["type", "Type", (row) => row.type],
];

function Filter({ name, label, value, rows }) {
  const wanted = where.value.query.get(name) ?? "";
  const values = [...new Set([...rows.values()].map(value).filter(Boolean))].sort();
  if (wanted && !values.includes(wanted)) values.push(wanted);
  return html`<label>${label} <select value=${wanted} onChange=${(event) => setQuery({ [name]: event.target.value }, false)}>
    <option value="">all</option>${values.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>`;
}

export function Nodes() {
  useEffect(() => follow("nodes", "images"), []);
  const rows = rowsOf("nodes");
  const query = where.value.query;
  const keep = (row) => FILTERS.every(([name, , value]) => !query.get(name) || value(row) === query.get(name));
  const picked = [...chosen.value].map((key) => rows.get(key)).filter(Boolean);
  const names = picked.map((row) => row.name);
  const removable = picked.length > 0 && picked.every((row) => row.type === "virtual");
  return html`<h1>Nodes</h1>
    <div class="bar" role="toolbar" aria-label="Actions">
      <button type="button" disabled=${!names.length} onClick=${() => deeds.boot(names)}>Boot an image…</button>
      <button type="button" disabled=${!names.length} onClick=${() => deeds.reboot(names)}>Reboot…</button>
      <button type="button" disabled=${!names.length} onClick=${() => deeds.blink(names)}>Blink</button>
      <button type="button" disabled=${!removable} title="virtual nodes alone" onClick=${() => deeds.remove(names)}>Remove…</button>
      <button type="button" onClick=${deeds.create}>Create a virtual node…</button>
      <span class="faint">${names.length ? `${names.length} selected` : ""}</span>
    </div>
    <${Table} rows=${rows} columns=${COLUMNS} keep=${keep} chosen=${chosen} label="Nodes"
      empty=${isReady("nodes") ? "There is no such node." : "Loading…"}>
      ${FILTERS.map(([name, label, value]) => html`<${Filter} key=${name} name=${name} label=${label} value=${value} rows=${rows} />`)}
    <//>`;
}
