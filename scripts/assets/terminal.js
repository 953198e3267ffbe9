// What pages with a terminal need of others, loaded on demand: …/assets/vendor/terminal.js
export { Terminal } from "@xterm/xterm";
