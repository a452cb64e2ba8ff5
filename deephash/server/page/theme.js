// Light or dark: as the system says, or as the switch was set. A classic script, so that nothing is painted before it.
(() => {
  const KEY = "deephash-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden
    }
  };
  let chosen = stored();
  const isDark = () => (chosen ? chosen === "dark" : system.matches);

  function apply() {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    document.getElementById("theme")?.setAttribute("aria-checked", String(isDark()));
  }

  function toggle() {
    const wanted = isDark() ? "light" : "dark";
    // Back at what the system says: follow the system again.
    chosen = (wanted === "dark") === system.matches ? null : wanted;
    try {
      chosen ? localStorage.setItem(KEY, chosen) : localStorage.removeItem(KEY);
    } catch {
      // Kept for this visit.
    }
    apply();
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", toggle);
  });
})();
