// The samples as they come: one store for a page, over a WebSocket that lies at the dashboard's root.
import { Connection } from "../../static/connection.js";
import { reportBroker, reportLink } from "../../static/status.js";
import { Store } from "./store.js";

let store = null;

export function live() {
  if (store) return store;
  store = new Store();
  const url = new URL("../../ws", import.meta.url);
  url.protocol = url.protocol.replace("http", "ws");
  const connection = new Connection(url, (update) => store.receive(update), (link) => store.setLink(link));
  store.listen(() => {
    reportLink(store.link, connection);
    reportBroker(store.broker, store.link);
  });
  return store;
}
