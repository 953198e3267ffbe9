// What every page needs of others, as one module: walt/server/http/assets/vendor/pages.js
export { Fragment, h, render } from "preact";
export { useEffect, useRef } from "preact/hooks";
export { batch, computed, effect, signal, useComputed, useSignal } from "@preact/signals";
import { h } from "preact";
import htm from "htm";

export const html = htm.bind(h);
