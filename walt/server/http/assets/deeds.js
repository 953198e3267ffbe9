// What people do to nodes: the calls of the walt command, after the same warnings.
import { html } from "./vendor/pages.js";
import { call, note, rowsOf, user } from "./live.js";
import { ask } from "./dialogs.js";

function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString();
}

function list(names) {
  return html`<ul>${names.map((name) => html`<li key=${name} class="text">${name}</li>`)}</ul>`;
}

// What others would notice, as the walt command warns of it.
function Warnings({ whose }) {
  const owners = Object.entries(whose.owners);
  return html`${owners.length > 0 && html`<div class="warning" role="alert"><strong>Of others:</strong>
      ${list(owners.map(([name, owner]) => `${name} belongs to ${owner}`))}</div>`}
    ${whose.reservations.length > 0 && html`<div class="warning" role="alert"><strong>Reserved:</strong>
      ${list(whose.reservations.map((one) => `${one.node} by ${one.user} until ${moment(one.until)}`))}</div>`}`;
}

async function attempt(what, work) {
  try {
    const values = await work();
    if (values?.ok === false) note(`${what}: it failed in part; see above`, true);
    else note(`${what}: done`);
    return true;
  } catch (error) {
    note(`${what}: ${error.message}`, true);
    return false;
  }
}

async function confirmed(names, { title, button, body = () => null, values = {}, image }) {
  let whose;
  try {
    whose = await call("cs.nodes.ownership", { nodes: names.join(","), ...(image ? { image } : {}) });
  } catch (error) {
    note(error.message, true);
    return null;
  }
  return ask({
    title, button, values,
    body: (answers, set) => html`${list(whose.names)}<${Warnings} whose=${whose} />${body(answers, set)}`,
  });
}

const many = (names) => (names.length === 1 ? names[0] : `${names.length} nodes`);

export async function reboot(names) {
  const answer = await confirmed(names, {
    title: `Reboot ${many(names)}?`, button: "Reboot", values: { hard: false },
    body: ({ hard }, set) => html`<label><input type="checkbox" checked=${hard}
      onChange=${(event) => set({ hard: event.target.checked })} /> by their power alone</label>`,
  });
  if (answer) {
    await attempt(`Reboot ${many(names)}`, () => call("cs.nodes.reboot", {
      nodes: names.join(","), hard_only: answer.hard, cause: "reboot requested",
    }));
  }
}

function ownImages() {
  const names = [...rowsOf("images").values()].filter((one) => one.user === user.value).map((one) => one.name);
  return ["default", ...names.sort()];
}

export async function boot(names) {
  const answer = await confirmed(names, {
    title: `Boot an image on ${many(names)}`, button: "Boot", values: { image: "default" },
    body: ({ image }, set) => html`<label>Image <select value=${image} onChange=${(event) => set({ image: event.target.value })}>
      ${ownImages().map((one) => html`<option value=${one}>${one}</option>`)}</select></label>
      <p class="faint">Your own images, and the default one.</p>`,
  });
  if (answer) {
    await attempt(`Boot ${answer.image} on ${many(names)}`, () => call("cs.nodes.boot", {
      nodes: names.join(","), image: answer.image, cause: "image change",
    }));
  }
}

const BLINKING = 10; // seconds
export async function blink(names) {
  await attempt(`Blink ${many(names)} for ${BLINKING} s`, async () => {
    await Promise.all(names.map((node) => call("cs.nodes.blink", { node, on: true })));
    await new Promise((resolve) => { setTimeout(resolve, BLINKING * 1000); });
    await Promise.all(names.map((node) => call("cs.nodes.blink", { node, on: false })));
  });
}

export async function create() {
  const answer = await ask({
    title: "Create a virtual node", button: "Create", values: { name: "" },
    body: ({ name }, set) => html`<label>Name <input required maxlength="63" value=${name} autofocus
      onInput=${(event) => set({ name: event.target.value })} /></label>`,
  });
  if (answer) await attempt(`Create ${answer.name}`, () => call("cs.nodes.create", { name: answer.name }));
}

export async function remove(names) {
  const answer = await confirmed(names, {
    title: `Remove ${many(names)}?`, button: "Remove", values: { logs: "keep" },
    body: ({ logs }, set) => html`<p>Their disks and settings go.</p>
      <fieldset><legend>Their log lines</legend>${[["keep", "stay, under the names of the nodes"], ["delete", "are deleted, too"]].map(([value, text]) => html`
      <label><input type="radio" name="logs" checked=${logs === value} onChange=${() => set({ logs: value })} /> ${text}</label><br />`)}</fieldset>`,
  });
  if (!answer) return;
  for (const name of names) {
    const logs = answer.logs === "keep" ? { keep_logs: true } : { force: true };
    await attempt(`Remove ${name}`, () => call("cs.nodes.remove", { name, ...logs }));
  }
}
