// Keeps the keyboard's focus in the page. Where the element that has it goes or is hidden, as a form after its answer, the
// one that had it before gets it: usually the button that opened the form. A disabled one gets it again when it is enabled.

const MOST = 30;
let path = []; // the elements that had the focus, the newest last
let isByKeys = false; // a finger that closes something shall not open a phone's keyboard

const waiting = new MutationObserver(() => mend(true));
const CHANGES = { childList: true, subtree: true, attributeFilter: ["disabled"] };

function canHaveIt(element) {
  return element.isConnected && !element.matches(":disabled") && element.checkVisibility({ visibilityProperty: true });
}

// isTaken: the element that had the focus could not keep it, even if it could have it again now.
function mend(isTaken) {
  const last = path.at(-1);
  if (!isByKeys || !last || document.activeElement !== document.body) return;
  if (!isTaken && canHaveIt(last)) return; // it went to the browser's own controls
  if (last.isConnected && last.matches(":disabled")) {
    waiting.observe(document.body, CHANGES);
    return;
  }
  waiting.disconnect();
  for (const one of [...path].reverse().filter(canHaveIt)) {
    one.focus();
    if (document.activeElement === one) return; // none outside an open dialog gets it
  }
  document.getElementById("page").focus();
}

addEventListener("pointerdown", () => (isByKeys = false), true);
addEventListener("keydown", () => {
  isByKeys = true;
  mend(false); // not every browser tells that the focused element was removed
}, true);
addEventListener("focusin", ({ target }) => {
  waiting.disconnect();
  path = [...path.filter((one) => one !== target && one.isConnected), target].slice(-MOST);
});
// The page may give the focus to something else in the same turn, and may enable a button again before it ends: as soon as
// the first listener has returned. This one is therefore the first, that of the window while the event is on its way down.
addEventListener("focusout", ({ target, relatedTarget }) => {
  if (relatedTarget) return;
  const isTaken = !canHaveIt(target);
  setTimeout(() => mend(isTaken));
}, true);
