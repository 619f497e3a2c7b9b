/* Elements from data, and the smallest change from what is shown to what should be.
 *
 * A view describes itself whole each time its data is read. `patch` carries the differences over to the page, so that focus,
 * selection, scrolling and half-filled forms stay where they are while figures change. Three rules make that work:
 *
 *   - Text comes in as text nodes, attributes by setAttribute: nothing that came from the broker is ever parsed as markup.
 *   - Handlers are properties of an element (`onclick`), which the patch can replace; `style` is set property by property,
 *     because the page's content security policy forbids style attributes.
 *   - What an element holds by itself (a chart's canvas, what was typed) is left alone: see `widget`, and no attribute that
 *     a user changes (`value` of a control, `open`) is touched once the element is there.
 */

const SVG = "http://www.w3.org/2000/svg";
const CONTROLS = new Set(["INPUT", "SELECT", "TEXTAREA", "OPTION", "DETAILS"]);
const USERS = new Set(["value", "checked", "selected", "open"]);

/** An HTML element. `props`: attributes; `on…` functions are handlers, `style` an object, `key` tells siblings apart. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key") element.patchKey = String(value);
    else if (name === "style") setStyles(element, value);
    else if (name.startsWith("on")) setHandler(element, name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

function setStyles(element, styles) {
  element.patchStyles = styles;
  for (const [name, value] of Object.entries(styles)) element.style.setProperty(name, value);
}

function setHandler(element, name, handler) {
  (element.patchHandlers ??= new Set()).add(name);
  element[name] = handler;
}

/** An element that looks after its own inside: `kind` has create(element, data), update(element, data), destroy(element). */
export function widget(kind, props, data) {
  const element = h("div", props);
  element.patchWidget = { kind, data };
  return element;
}

/** Something made once, by `make()`, and then left to itself: a form that is being filled in. */
export function kept(key, make) {
  return widget(KEPT, { key, class: "kept" }, make);
}

const KEPT = {
  create: (element, make) => element.append(make()),
  update: () => {},
  destroy: () => {},
};

const alive = new Set();

/** Make `parent` show `nodes`. */
export function render(parent, nodes) {
  patchChildren(parent, [nodes].flat(Infinity).filter(Boolean));
  for (const element of alive) {
    if (!element.isConnected) {
      element.patchWidget.kind.destroy(element);
      alive.delete(element);
    }
  }
}

function enliven(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return;
  for (const element of [node, ...node.querySelectorAll("div")]) {
    if (element.patchWidget && !alive.has(element)) {
      alive.add(element);
      element.patchWidget.kind.create(element, element.patchWidget.data);
    }
  }
}

function alike(old, fresh) {
  return (
    old.nodeName === fresh.nodeName && old.patchKey === fresh.patchKey && old.patchWidget?.kind === fresh.patchWidget?.kind
  );
}

function patchChildren(parent, fresh) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.patchKey !== undefined) keyed.set(node.patchKey, node);
  let here = parent.firstChild;
  for (const node of fresh) {
    let old = node.patchKey === undefined ? here : keyed.get(node.patchKey);
    if (old && alike(old, node)) {
      keyed.delete(node.patchKey);
      if (old === here) here = here.nextSibling;
      else parent.insertBefore(old, here);
      patchNode(old, node);
    } else {
      parent.insertBefore(node, here);
      enliven(node);
      // An unkeyed element of another kind stood in this place: it is replaced, not pushed along.
      if (here && here.patchKey === undefined && node.patchKey === undefined) {
        const gone = here;
        here = here.nextSibling;
        gone.remove();
      }
    }
  }
  while (here) {
    const gone = here;
    here = here.nextSibling;
    gone.remove();
  }
}

function patchNode(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  patchAttributes(old, fresh);
  for (const name of old.patchHandlers ?? []) old[name] = fresh[name];
  for (const name of fresh.patchHandlers ?? []) setHandler(old, name, fresh[name]);
  if (fresh.patchStyles) setStyles(old, fresh.patchStyles);
  if (old.patchWidget) {
    old.patchWidget.data = fresh.patchWidget.data;
    old.patchWidget.kind.update(old, fresh.patchWidget.data);
  } else {
    patchChildren(old, [...fresh.childNodes]);
  }
}

function patchAttributes(old, fresh) {
  const ours = (name) => name !== "style" && !(CONTROLS.has(old.nodeName) && USERS.has(name));
  for (const { name } of [...old.attributes]) {
    if (ours(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (ours(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}
