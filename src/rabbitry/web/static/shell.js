// What surrounds each page: the place of the navigation, the choice of a theme, and the search.
import { signOut } from "./access.js";
import "./focus.js";
import { openPalette } from "./palette.js";

// The navigation sticks below the header, which has two lines where its states do not fit beside the title.
const header = document.querySelector(".top");
new ResizeObserver(() => document.documentElement.style.setProperty("--top", `${header.offsetHeight}px`)).observe(header);

const theme = document.getElementById("theme");
theme.value = window.rabbitryTheme.chosen;
theme.addEventListener("change", () => window.rabbitryTheme.choose(theme.value));
addEventListener("themechange", () => (theme.value = window.rabbitryTheme.chosen));

document.getElementById("sign-out")?.addEventListener("click", signOut);
// A page to which the browser goes back as it was left may be that of somebody who has signed out since.
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
document.getElementById("search").addEventListener("click", openPalette);
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
  const isSlash = event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey;
  const isControlK = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (!isSlash && !isControlK) return;
  event.preventDefault();
  openPalette();
});
