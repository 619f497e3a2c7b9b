/* Runs before the first paint, as a classic script: a remembered theme must not flash through the other one. */
(function () {
  try {
    const theme = localStorage.getItem("logsvc.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    /* Storage may be forbidden; the system's theme is used then. */
  }
})();
