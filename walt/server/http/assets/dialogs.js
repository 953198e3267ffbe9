// Questions before something is done, and the list of what was done.
import { html, signal, useEffect, useRef } from "./vendor/pages.js";
import { told } from "./live.js";

const asked = signal(null);

// Show a question: `body` is what it tells, a function of the answers so far; resolves to the
// answers, or to null.
export function ask({ title, body, button, values = {} }) {
  return new Promise((resolve) => { asked.value = { title, body, button, values: signal(values), resolve }; });
}

export function Dialog() {
  const element = useRef(null), question = asked.value;
  useEffect(() => {
    if (question) element.current?.showModal();
  }, [question]);
  if (!question) return null;
  const end = (answer) => { asked.value = null; question.resolve(answer); };
  const set = (change) => { question.values.value = { ...question.values.value, ...change }; };
  return html`<dialog ref=${element} aria-labelledby="question" onCancel=${() => end(null)}>
    <form onSubmit=${(event) => { event.preventDefault(); end(question.values.value); }}>
      <h1 id="question">${question.title}</h1>
      ${question.body(question.values.value, set)}
      <div class="buttons">
        <button type="button" onClick=${() => end(null)}>Cancel</button>
        <button type="submit" class="main">${question.button}</button>
      </div>
    </form>
  </dialog>`;
}

export function Deeds() {
  const lines = told.value;
  return html`<section class="deeds" aria-label="What was done" hidden=${lines.length === 0}>
    <div class="bar"><strong>What was done</strong>
      <button type="button" onClick=${() => { told.value = []; }}>Clear</button></div>
    <div role="log" aria-live="polite"><ul>${lines.map((one) => html`<li key=${one.id} class=${one.wrong ? "wrong" : null}>
      <span class="text">${one.wrong ? "✕ " : ""}${one.text}</span></li>`)}</ul></div>
  </section>`;
}
