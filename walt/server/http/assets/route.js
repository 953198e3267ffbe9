// Where one is: the path and the query of the address are the state of a page.
import { signal } from "./vendor/pages.js";

export const where = signal(here());

function here() {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

addEventListener("popstate", () => { where.value = here(); });

// Links are real ones; those of these pages change the page in its place.
document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith("/ui/") || url.hash) return;
  event.preventDefault();
  go(url.pathname + url.search);
});

export function go(address) {
  history.pushState(null, "", address);
  where.value = here();
  scrollTo(0, 0);
}

// Change values of the query; empty ones go. What is typed leaves no trail in the history.
export function setQuery(values, replace = true) {
  const query = new URLSearchParams(where.value.query);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value); else query.delete(name);
  }
  const text = query.toString();
  const address = where.value.path + (text ? `?${text}` : "");
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  where.value = here();
}
