// Live lists that hold their order while somebody points at them or goes through them by keyboard, so that no other entry
// comes under the pointer between looking and clicking. New values still show.
import { Component, h } from "./html.js";

const LINGER = 300; // milliseconds: the click of a finger comes after its pointer has left

export class Hold {
  isHeld = false;
  reasons = new Set();
  drawn = null; // the list as it was drawn last: {entries, first}

  // `changed()` is called when a hold begins or ends.
  constructor(changed) {
    this.changed = changed;
    this.listeners = {
      onPointerEnter: () => this.begin("pointer"),
      onPointerLeave: () => this.end("pointer"),
      onFocusIn: ({ target }) => target.matches(":focus-visible") && this.begin("focus"),
      onFocusOut: ({ currentTarget, relatedTarget }) => currentTarget.contains(relatedTarget) || this.end("focus"),
    };
  }

  begin(reason) {
    this.reasons.add(reason);
    clearTimeout(this.ending);
    if (this.isHeld) return;
    this.isHeld = true;
    this.changed();
  }

  end(reason) {
    if (!this.reasons.delete(reason) || this.reasons.size > 0) return;
    this.ending = setTimeout(() => {
      this.isHeld = false;
      this.changed();
    }, LINGER);
  }

  close() {
    clearTimeout(this.ending);
  }

  // Another order was asked for: the next list is drawn as it comes.
  forget() {
    this.drawn = null;
  }

  // Returns the entries in the order to be drawn. While it is held they stay at their places, those that are gone
  // included, and new ones follow at the end. first: where `entries` are a window on a longer list, its first place.
  order(entries, keyOf, first = null) {
    const found = this.isHeld && this.drawn ? held(this.drawn, entries, keyOf, first) : [...entries];
    this.drawn = { entries: found, first: first ?? 0 };
    return found;
  }
}

function held(drawn, entries, keyOf, first) {
  const start = first ?? 0;
  const fresh = new Map(entries.map((entry) => [keyOf(entry), entry]));
  const kept = new Map(); // place → entry
  drawn.entries.forEach((entry, index) => {
    const place = drawn.first + index;
    if (place < start) return;
    const key = keyOf(entry);
    kept.set(place, fresh.get(key) ?? entry);
    fresh.delete(key);
  });
  const added = [...fresh.values()];
  const end = Math.max(start + entries.length, drawn.first + drawn.entries.length);
  const found = [];
  for (let place = start; place < end; place += 1) {
    const entry = kept.get(place) ?? added.shift();
    if (entry !== undefined) found.push(entry);
  }
  return first === null ? [...found, ...added] : found; // a window has no room for more
}

// A live list. Props: as (the element around it), entries, keyOf(entry), draw(entry, isGone), isStill (while it is held
// nothing of it changes), asked (another order is taken when this changes), and attributes of the element.
export class Held extends Component {
  hold = new Hold(() => this.setState({}));

  componentWillUnmount() {
    this.hold.close();
  }

  render({ as, entries, keyOf, draw, isStill, asked, ...attributes }) {
    const { hold } = this;
    if (asked !== this.asked) hold.forget();
    this.asked = asked;
    const known = new Set(isStill ? [] : entries);
    const shown = isStill && hold.isHeld && hold.drawn ? hold.drawn.entries : hold.order(entries, keyOf);
    return h(as, { ...attributes, ...hold.listeners }, shown.map((entry) => draw(entry, !isStill && !known.has(entry))));
  }
}
