// /ui/session: who is in here, and the way out.
import { html } from "./vendor/pages.js";
import { leave, user } from "./live.js";

export function Session() {
  return html`<h1>Session</h1>
    <p>You are <strong class="text">${user.value}</strong> here: what you do is done as by the walt command of ${user.value}.</p>
    <p><button type="button" onClick=${leave}>Log out</button></p>
    <p class="faint">To end your sessions in all browsers, type <code>walt web --logout</code>.</p>`;
}

export function Login({ why }) {
  return html`<main><h1>WalT</h1>
    ${why && html`<p role="alert">${why}</p>`}
    <p>To come in, type in a terminal of this machine:</p>
    <pre>walt web</pre>
    <p>and open the link that it prints. It works once, for two minutes.</p></main>`;
}
