// The frame of all pages, and which page an address shows.
import { html, render, useEffect } from "./vendor/pages.js";
import { begin, live, lostAt, refusal, user } from "./live.js";
import { go, where } from "./route.js";
import { Deeds, Dialog } from "./dialogs.js";
import { Boots } from "./boots.js";
import { Experiments } from "./experiments.js";
import { Images, Services } from "./images.js";
import { Logs } from "./logs.js";
import { NetworkMap } from "./map.js";
import { Node } from "./node.js";
import { Nodes } from "./nodes.js";
import { Login, Session } from "./session.js";
import { Console, Shell } from "./terminal.js";

const PAGES = [
  ["/ui/nodes", "Nodes", Nodes],
  ["/ui/map", "Map", NetworkMap],
  ["/ui/logs", "Logs", Logs],
  ["/ui/boots", "Boots", Boots],
  ["/ui/images", "Images", Images],
  ["/ui/experiments", "Experiments", Experiments],
  ["/ui/services", "Services", Services],
  ["/ui/session", "Session", Session],
];

const OF_NODE = { "": ["", Node], "/console": ["console of ", Console], "/shell": ["shell of ", Shell] };

// Return the title and the component of a page, and what it gets.
function found(path) {
  const page = PAGES.find(([start]) => path === start);
  if (page) return { title: page[1], component: page[2], values: {} };
  const match = /^\/ui\/nodes\/([^/]+)(\/console|\/shell)?$/.exec(path);
  if (!match) return null;
  let name;
  try { name = decodeURIComponent(match[1]); } catch { return null; }
  const [prefix, component] = OF_NODE[match[2] ?? ""];
  return { title: prefix + name, component, values: { name } };
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
  document.title = `${page ? page.title : "No such page"} – WalT`;
  return html`<header>
      <a class="name" href="/ui/nodes">WalT</a>
      <nav aria-label="Pages"><ul>${PAGES.map(([start, label]) => html`<li key=${start}>
        <a href=${start} aria-current=${path === start || path.startsWith(`${start}/`) ? "page" : null}>${label}</a></li>`)}</ul></nav>
      <span class="who text">${user.value}</span>
    </header>
    <${Banner} />
    <main id="main">${page ? html`<${page.component} key=${path} ...${page.values} />` : html`<h1>No such page</h1>`}</main>
    <${Dialog} /><${Deeds} />`;
}

render(html`<${Page} />`, document.getElementById("page"));
begin();
