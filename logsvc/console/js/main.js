/* The console: puts the view that the address names on the page and keeps it fresh.
 *
 * A view is an object made from the address:
 *   title             for the page's title
 *   load(signal)      a promise of its data, read every two seconds
 *   draw(data, page)  what to show, as nodes; `page` is below
 *   frozen            true when its data is not to be read again by itself
 * The page gives views what they share: {broker, session, redraw(), refresh()}.
 */

import { forgetSession, getSession, read } from "./api.js";
import { render } from "./dom.js";
import { localTime } from "./format.js";
import { Live } from "./live.js";
import { problem } from "./parts.js";
import { here, link } from "./router.js";
import { startTheme } from "./theme.js";
import { brokerView } from "./views/broker.js";
import { deadLettersView } from "./views/dead-letters.js";
import { groupView } from "./views/group.js";
import { groupsView } from "./views/groups.js";
import { lettersView } from "./views/letters.js";
import { overviewView } from "./views/overview.js";
import { recordsView } from "./views/records.js";
import { topicView } from "./views/topic.js";
import { topicsView } from "./views/topics.js";

const $ = (id) => document.getElementById(id);
const STATES = { connecting: "Connecting", live: "Live", paused: "Paused", unreachable: "Not reachable" };

let view = null;
let shown = null;
const page = { broker: null, session: { writes: false }, redraw, refresh: () => live.refresh() };
const live = new Live({ onData: show, onError: refuse, onState: tellState });

function route() {
  const { segments, query } = here();
  const [section, name, sub] = segments;
  if (!section) return overviewView();
  if (section === "topics" && name && sub === "records") return recordsView(name, query);
  if (section === "topics") return name ? topicView(name) : topicsView(query);
  if (section === "groups") return name ? groupView(name) : groupsView();
  if (section === "dead-letters") return name ? lettersView(name, query) : deadLettersView();
  if (section === "broker") return brokerView();
  return null;
}

function open({ first = false } = {}) {
  view = route();
  if (!view) {
    location.replace(link([]));
    return;
  }
  shown = null;
  document.title = view.title === "Overview" ? "logsvc" : `${view.title} · logsvc`;
  markNavigation(here().segments[0] ?? "overview");
  render($("view"), []);
  $("view").setAttribute("aria-busy", "true");
  if (!first) {
    scrollTo(0, 0);
    $("main").focus({ preventScroll: true });
  }
  live.follow(loadPage);
}

function markNavigation(section) {
  for (const anchor of document.querySelectorAll("[data-nav]")) {
    if (anchor.dataset.nav === section) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

/** What every view needs and its own, in one go. */
async function loadPage(signal) {
  const wanted = view;
  const keep = wanted.frozen && shown !== null;
  const [broker, session, data] = await Promise.all([
    read("broker", { signal }),
    getSession(),
    keep ? shown : wanted.load(signal),
  ]);
  return { broker, session, data };
}

function show({ broker, session, data }) {
  page.broker = broker;
  page.session = session;
  $("version").textContent = `logsvc ${broker.version}`;
  shown = data;
  redraw();
}

function redraw() {
  if (shown === null) return;
  render($("view"), view.draw(shown, page));
  $("view").removeAttribute("aria-busy");
}

function refuse(error) {
  if (error.unreachable && shown !== null) return; // what was shown stays; the banner says how old it is
  shown = null;
  render($("view"), problem(view.title, error));
  $("view").removeAttribute("aria-busy");
}

function tellState(state, before) {
  $("link-state").dataset.state = state;
  $("link-text").textContent = STATES[state];
  const away = state === "unreachable";
  // The broker that answers next may be another one: its token is new.
  if (before === "unreachable") forgetSession();
  const banner = $("banner");
  banner.hidden = !away;
  banner.textContent = away
    ? `The broker has not answered since ${localTime(Date.now())}. You see what it last said; trying again every 2 seconds.`
    : "";
}

function startPause(button) {
  const text = button.querySelector("span");
  button.addEventListener("click", () => {
    live.setPaused(!live.paused);
    button.dataset.paused = String(live.paused);
    text.textContent = live.paused ? "Resume updates" : "Pause updates";
  });
}

// The hash holds the address, so a plain in-page link would be taken for one.
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
startTheme($("theme"), $("theme-text"));
startPause($("pause"));
addEventListener("hashchange", () => open());
open({ first: true });
