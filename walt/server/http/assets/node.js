// /ui/nodes/NAME: what a node is, how it boots, what it says.
import { html, useEffect } from "./vendor/pages.js";
import { follow, isReady, rowsOf } from "./live.js";
import { BootTable, useBoots } from "./boots.js";
import { Lines } from "./lines.js";
import { State, address } from "./nodes.js";
import * as deeds from "./deeds.js";

export function rowNamed(name) {
  return [...rowsOf("nodes").values()].find((row) => row.name === name);
}

function Facts({ row }) {
  const facts = [
    ["State", html`<${State} row=${row} />`], ["Owner", row.owner ?? "free"],
    ["Reserved", row.reserved_by ? `by ${row.reserved_by} until ${new Date(row.reserved_until * 1000).toLocaleString()}` : "no"],
    ["Image", row.image_name], ["Model", row.model ?? "–"], ["Type", row.type],
    ["Address", row.ip ?? "–"], ["MAC", row.mac], ["Network", row.netsetup],
    ["Switch and port", row.switch ? `${row.switch} ${row.port ?? ""}` : "not known"],
  ];
  return html`<dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd class="text">${value}</dd>`)}</dl>`;
}

export function Node({ name }) {
  useEffect(() => follow("nodes", "images"), []);
  const row = rowNamed(name);
  const { boots, error } = useBoots(name, 10, row ? `${row.state} ${row.stage}` : "");
  if (!row) {
    return html`<h1 class="text">${name}</h1><p>${isReady("nodes") ? "There is no node of this name (any more)." : "Loading…"}</p>`;
  }
  const names = [name];
  return html`<h1 class="text">${name}</h1>
    <div class="bar" role="toolbar" aria-label="Actions">
      ${row.type === "virtual" && html`<a href=${`${address(name)}/console`}>Console</a>`}
      <a href=${`${address(name)}/shell`}>Shell</a>
      <button type="button" onClick=${() => deeds.boot(names)}>Boot an image…</button>
      <button type="button" onClick=${() => deeds.reboot(names)}>Reboot…</button>
      <button type="button" onClick=${() => deeds.blink(names)}>Blink</button>
      ${row.type === "virtual" && html`<button type="button" onClick=${() => deeds.remove(names)}>Remove…</button>`}
    </div>
    <${Facts} row=${row} />
    <h2>Boots</h2>
    ${error && html`<p class="trouble">${error}</p>`}
    <${BootTable} boots=${boots} withNode=${false} />
    <h2>What it logs</h2>
    <${Lines} query=${{ issuers: name, exclude_consoles: true }} history=${3600} realtime=${true} oneIssuer=${true} label=${`Log lines of ${name}`} />`;
}
