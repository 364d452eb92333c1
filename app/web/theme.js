// Light or dark: as the system has it, until somebody says otherwise. Not a module, so that the page
// is never painted in the wrong colours first.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  // A browser may forbid storage altogether; then the choice lasts as long as the page.
  const storage = {
    get: () => { try { return localStorage.getItem("classifier.theme"); } catch { return null; } },
    set: (value) => {
      try {
        if (value) localStorage.setItem("classifier.theme", value);
        else localStorage.removeItem("classifier.theme");
      } catch { /* see above */ }
    },
  };

  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () =>
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  const kept = storage.get();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      const next = isDark() ? "light" : "dark";
      // Back to what the system has is back to following it.
      if ((next === "dark") === system.matches) delete root.dataset.theme;
      else root.dataset.theme = next;
      storage.set(root.dataset.theme);
      show();
    });
  });
})();
