/* Light, dark, or what the system says.
 *
 * Every colour is a custom property defined with `light-dark()`, so a theme is nothing but the `color-scheme` of the root. What
 * cannot follow by itself, the canvas of a chart, listens to "themechange".
 */

const KEY = "logsvc.theme";
const ORDER = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme(button, text) {
  const show = () => {
    text.textContent = `Theme: ${current()}`;
  };
  button.addEventListener("click", () => {
    choose(ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length]);
    show();
  });
  system.addEventListener("change", announce);
  show();
}

function current() {
  return document.documentElement.dataset.theme ?? "system";
}

function choose(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage may be forbidden: the choice holds until the page is closed.
  }
  announce();
}

function announce() {
  document.dispatchEvent(new Event("themechange"));
}

/** The colour a custom property has now, as the canvas understands it. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
