// The theme, set before anything is drawn: the reader's choice, else the system's. A classic script, and no module.
(() => {
  const KEY = "rabbitry.theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "system";
  try {
    chosen = localStorage.getItem(KEY) ?? "system";
  } catch {
    // Storage is switched off: the choice holds for this page.
  }

  const apply = () => {
    const theme = chosen === "light" || chosen === "dark" ? chosen : dark.matches ? "dark" : "light";
    if (document.documentElement.dataset.theme === theme) return;
    document.documentElement.dataset.theme = theme;
    dispatchEvent(new Event("themechange"));
  };

  window.rabbitryTheme = {
    get chosen() {
      return chosen;
    },
    choose(theme) {
      chosen = theme;
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // As above.
      }
      apply();
    },
  };
  dark.addEventListener("change", apply);
  // Another page of the dashboard in another tab.
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== KEY) return;
    chosen = newValue ?? "system";
    apply();
  });
  apply();
})();
