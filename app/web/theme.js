// Light or dark: as the system has it, until somebody says otherwise. Not a module, so that the page
// is never painted in the wrong colours first.
(() => {
  const KEY = "classifier.theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () =>
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));

  // A browser may forbid storage altogether; then the choice lasts as long as the page.
  const attempt = (action) => { try { return action(); } catch { return null; } };

  const kept = attempt(() => localStorage.getItem(KEY));
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      attempt(() => localStorage.setItem(KEY, root.dataset.theme));
      show();
    });
  });
})();
