// Live lists that hold their order while somebody points at them or goes through them by keyboard, so that no other entry
// comes under the pointer between looking and clicking. New values still show. A finger points only while it touches:
// after that the order is held for as long as it takes to read, and to touch again.
import { Component, h } from "./html.js";

const LINGER = 300; // milliseconds
const LINGER_OF_TOUCH = 6000; // milliseconds
const MOST_GONE = 200; // entries that are gone, of a list that is held for long

export class Hold {
  isHeld = false;
  reasons = new Set();
  drawn = null; // the list as it was drawn last: {entries, first}

  // `changed()` is called when a hold begins or ends.
  constructor(changed) {
    this.changed = changed;
    this.listeners = {
      onPointerEnter: () => this.begin("pointer"),
      onPointerLeave: ({ pointerType }) => this.end("pointer", pointerType === "touch" ? LINGER_OF_TOUCH : LINGER),
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

  end(reason, linger = LINGER) {
    if (!this.reasons.delete(reason) || this.reasons.size > 0) return;
    clearTimeout(this.ending);
    this.ending = setTimeout(() => {
      this.isHeld = false;
      this.changed();
    }, linger);
  }

  close() {
    clearTimeout(this.ending);
  }

  // Another order was asked for: the next list is drawn as it comes.
  forget() {
    this.drawn = null;
  }

  // Returns the entries in the order to be drawn. While it is held they stay at their places, those that are gone
  // included, and new ones follow at the end. span: {first, count} where `entries` are a window on a longer list, which has
  // so many places from the first one on; a place at which nothing is known to stand is undefined.
  order(entries, keyOf, span = null) {
    const found = this.isHeld && this.drawn ? held(this.drawn, entries, keyOf, span) : [...entries];
    this.drawn = { entries: found, first: span?.first ?? 0 };
    return found;
  }
}

function held(drawn, entries, keyOf, span) {
  const first = span?.first ?? 0;
  const fresh = new Map(entries.map((entry) => [keyOf(entry), entry]));
  const kept = new Map(); // place → entry
  let gone = 0;
  drawn.entries.forEach((entry, index) => {
    const place = drawn.first + index;
    if (!entry || place < first || (span && place >= first + span.count)) return;
    const key = keyOf(entry);
    if (!fresh.has(key) && !span && ++gone > MOST_GONE) return;
    kept.set(place, fresh.get(key) ?? entry);
    fresh.delete(key);
  });
  const added = [...fresh.values()];
  if (!span) return [...kept.values(), ...added];
  const end = Math.min(first + span.count, Math.max(first + entries.length, drawn.first + drawn.entries.length));
  return Array.from({ length: Math.max(0, end - first) }, (_, index) => kept.get(first + index) ?? added.shift());
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
