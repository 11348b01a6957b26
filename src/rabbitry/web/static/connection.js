// The WebSocket, which comes back by itself: pauses between attempts grow, and are told.
import { shown } from "./format.js";
import { isLeft } from "./leaving.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
const SILENCE = 15_000; // the server says something at least each 5 s
const EXPLAIN_WITHIN = 5_000;

export class Connection {
  // `receive(update)` takes each message; `changed(state)` each {state: connecting|live|lost, at, retryAt, reason}, where `at`
  // is when the last message came, and goes on; `opened()` may send the first messages.
  constructor(url, receive, changed, opened = () => {}) {
    this.url = url;
    this.receive = receive;
    this.changed = changed;
    this.opened = opened;
    this.pause = FIRST_PAUSE;
    this.open();
    // A laptop that wakes up or finds its network again need not wait for the pause to end.
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    if (isLeft()) return;
    this.changed({ state: "connecting" });
    const socket = new WebSocket(this.url);
    this.socket = socket;
    let heard = false;
    let watch = setTimeout(() => this.lose(socket, "no answer"), SILENCE);
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => {
      clearTimeout(watch);
      watch = setTimeout(() => this.lose(socket, "the server went silent"), SILENCE);
      const at = performance.now();
      if (!heard) {
        heard = true;
        this.pause = FIRST_PAUSE;
        this.link = { state: "live", at };
        this.changed(this.link);
      }
      this.link.at = at;
      this.receive(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      clearTimeout(watch);
      if (heard || event.reason) this.lose(socket, event.reason || "the server closed it");
      else explain().then((reason) => this.lose(socket, reason));
    };
  }

  // Sends a message if the socket is open; `opened` is called when it is.
  send(text) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(text);
  }

  lose(socket, reason) {
    if (socket !== this.socket) return;
    this.socket = null;
    socket.close();
    const pause = this.pause * (0.75 + Math.random() / 2); // many pages shall not come back all at once
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.timer = setTimeout(() => this.open(), pause);
    this.changed({ state: "lost", retryAt: Date.now() + pause, reason });
  }

  retryNow() {
    if (this.timer !== null) this.open();
  }
}

// Why a handshake failed: a browser keeps that to itself, so the server is asked by the way that is answered in words.
async function explain() {
  try {
    const signal = AbortSignal.timeout(EXPLAIN_WITHIN);
    const response = await fetch(new URL("../healthz", import.meta.url), { cache: "no-store", signal });
    if (response.ok || response.status === 503) return "the server answers, but no WebSocket: does a proxy in between pass it on?";
    if (response.status === 401) return "you are signed out: load this page anew to sign in";
    return shown((await response.text()).trim().slice(0, 200)) || `the server answers ${response.status}`;
  } catch {
    return "the server does not answer";
  }
}
