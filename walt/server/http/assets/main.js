// The frame of all pages, and which page an address shows.
import { html, render, useEffect } from "./vendor/pages.js";
import { begin, live, lostAt, refusal, user } from "./live.js";
import { go, where } from "./route.js";
import { Deeds, Dialog } from "./dialogs.js";
import { Nodes } from "./nodes.js";
import { Login, Session } from "./session.js";

const PAGES = [
  ["/ui/nodes", "Nodes", Nodes],
  ["/ui/session", "Session", Session],
];

function found(path) {
  return PAGES.find(([start]) => path === start);
}

function Banner() {
  if (live.value || lostAt.value === null) return null;
  return html`<div class="banner" role="alert">Not live since ${lostAt.value.toLocaleTimeString()}: there is no connection to the server; it is tried again.</div>`;
}

function Page() {
  const { path } = where.value;
  useEffect(() => { if (path === "/ui/" || path === "/ui") go("/ui/nodes"); }, [path]);
  if (user.value === false) return html`<${Login} why=${refusal.value} />`;
  if (user.value === null) return html`<main><${Banner} /><p class="faint">Connecting…</p></main>`;
  const page = found(path);
  document.title = `${page ? page[1] : "No such page"} – WalT`;
  return html`<header>
      <a class="name" href="/ui/nodes">WalT</a>
      <nav aria-label="Pages"><ul>${PAGES.map(([start, label]) => html`<li key=${start}>
        <a href=${start} aria-current=${path === start || path.startsWith(`${start}/`) ? "page" : null}>${label}</a></li>`)}</ul></nav>
      <span class="who text">${user.value}</span>
    </header>
    <${Banner} />
    <main id="main">${page ? html`<${page[2]} />` : html`<h1>No such page</h1>`}</main>
    <${Dialog} /><${Deeds} />`;
}

render(html`<${Page} />`, document.getElementById("page"));
begin();
