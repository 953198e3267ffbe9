// /ui/logs: lines of nodes and of the platform; the server filters.
import { html, useSignal } from "./vendor/pages.js";
import { setQuery, where } from "./route.js";
import { Lines } from "./lines.js";

const SPANS = [["0", "from now on"], ["300", "last 5 minutes"], ["3600", "last hour"], ["86400", "last day"], ["604800", "last 7 days"]];

export function Logs() {
  const query = where.value.query;
  const typed = useSignal(null);
  const values = typed.value ?? { issuers: query.get("issuers") ?? "", streams: query.get("streams") ?? "", lines: query.get("lines") ?? "" };
  const set = (name) => (event) => { typed.value = { ...values, [name]: event.target.value }; };
  const asked = { exclude_consoles: !query.has("consoles") };
  for (const name of ["issuers", "streams", "lines"]) if (query.get(name)) asked[name] = query.get(name);
  const span = query.get("span") ?? "300", follow = !query.has("still");
  return html`<h1>Logs</h1>
    <form class="bar" onSubmit=${(event) => { event.preventDefault(); setQuery(values, false); typed.value = null; }}>
      <label>From <input value=${values.issuers} onInput=${set("issuers")} placeholder="all" maxlength="1000" /></label>
      <label>Streams <input value=${values.streams} onInput=${set("streams")} placeholder="expression" maxlength="500" /></label>
      <label>Lines <input type="search" value=${values.lines} onInput=${set("lines")} placeholder="expression" maxlength="500" /></label>
      <button type="submit" class="main">Show</button>
      <label>Time <select value=${span} onChange=${(event) => setQuery({ span: event.target.value }, false)}>
        ${SPANS.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label>
      <label><input type="checkbox" checked=${follow} onChange=${() => setQuery({ still: follow ? "1" : "" }, false)} /> live</label>
      <label><input type="checkbox" checked=${query.has("consoles")} onChange=${() => setQuery({ consoles: query.has("consoles") ? "" : "1" }, false)} /> consoles, too</label>
    </form>
    <${Lines} query=${asked} history=${Number(span)} realtime=${follow} label="Log lines" tall=${true} />`;
}
