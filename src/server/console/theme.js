// Before anything is painted: the theme that was chosen here, or else the system's.
(() => {
  const NEXT = { system: "light", light: "dark", dark: "system" };
  const read = () => {
    try {
      const kept = localStorage.getItem("theme");
      return kept in NEXT ? kept : "system";
    } catch {
      return "system";
    }
  };
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
  };
  show(read());
  document.addEventListener("DOMContentLoaded", () => {
    show(read());
    document.getElementById("theme").addEventListener("click", () => {
      const theme = NEXT[document.documentElement.dataset.theme];
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // It holds for as long as the page is open.
      }
      show(theme);
    });
  });
})();
