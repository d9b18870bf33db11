"use strict";
// The page of landfall-ingress: reads /api/v1 and shows it. Text from objects only ever becomes text nodes.

const PERIOD = 2000;
const PAGE = 50;
// Routes whose graphs are shown at once.
const GRAPHED = 12;
const $ = (id) => document.getElementById(id);
const state = { paused: false, view: "", sort: {}, q: "", only: "", offset: 0, overview: null, turn: 0 };

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}

// Numbers: each shown one carries the API's value in data-value.
const int = (n) => Number(n).toLocaleString("en-US");
const rate = (n) => (n >= 100 ? int(Math.round(n)) : String(Math.round(n * 10) / 10));
const ms = (n) => (n === null || n === undefined ? "–" : n >= 1000 ? (n / 1000).toFixed(2) + " s" : n >= 100 ? Math.round(n) + " ms" : n.toFixed(1) + " ms");
function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) { n /= 1000; unit++; }
  return (unit ? n.toFixed(1) : n) + " " + units[unit];
}
function span(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 1) return "now";
  if (seconds < 90) return Math.floor(seconds) + " s";
  if (seconds < 5400) return Math.floor(seconds / 60) + " min";
  if (seconds < 172800) return Math.floor(seconds / 3600) + " h";
  return Math.floor(seconds / 86400) + " d";
}
const ago = (seconds) => (seconds === null || seconds === undefined ? "never" : seconds < 1 ? "now" : span(seconds) + " ago");
const KINDS = { healthy: "good", ready: "good", valid: "good", degraded: "warn", draining: "warn", expiring: "warn", note: "", approximated: "warn",
  down: "bad", closed: "bad", ejected: "bad", unreachable: "bad", passes: "good", answers: "bad", open: "warn", "not ready": "bad", refused: "bad", unusable: "bad", stopping: "warn" };
const badge = (word, why) => [el("span", { class: "badge " + (KINDS[word] || "") }, word), why ? el("span", { class: "why" }, why) : null];

async function get(path) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), 10000);
  try {
    const response = await fetch("/api/v1/" + path, { signal: controller.signal, cache: "no-store" });
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(body.error || "status " + response.status);
    return body;
  } finally { clearTimeout(timer); }
}

const many = (n, what) => int(n) + " " + what + (n === 1 ? "" : "s");

// A name that may be broken behind its dots and slashes.
const soft = (text) => el("code", {}, text.split(/(?<=[./])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part])));

// A view by its hash; what stands behind "=" is searched there, or explained.
const link = (view, what, text) => el("a", { href: "#" + view + "=" + encodeURIComponent(what) }, text);

// An endpoint in one line: its state and what is not as it should be.
function endpointLine(e) {
  const notes = [e.near === null ? "" : e.near ? "near" : "far", e.in_flight ? int(e.in_flight) + " in flight" : "",
    e.ejected_for_ms === null ? "" : "left out for " + span(Math.ceil(e.ejected_for_ms / 1000)) + " more",
    e.unreachable_in_a_row ? many(e.unreachable_in_a_row, "failed connection") + " in a row" : "",
    e.unanswered_in_a_row ? many(e.unanswered_in_a_row, "unanswered request") + " in a row" : "",
    e.failures ? many(e.failures, "failure") + " in all" : "",
    e.tried_although_ejected ? "tried although ejected: " + many(e.tried_although_ejected, "time") : ""].filter(Boolean);
  return el("div", { class: "endpoint" }, el("code", {}, e.address), " ", badge(e.state), notes.length ? el("span", { class: "dim" }, " " + notes.join(" · ")) : null);
}

const SHOWN = 12;
function endpointList(s) {
  const more = s.endpoints.length + s.endpoints_left_out - SHOWN;
  if (!s.endpoints.length) return el("span", { class: "dim" }, "none");
  return [s.endpoints.slice(0, SHOWN).map(endpointLine), more > 0 ? el("a", { href: "/api/v1/services?q=" + encodeURIComponent(s.name) }, int(more) + " more") : null];
}

// Views with a table: columns are [title, sort key or "", cell, is it a number].
const traffic = [
  ["req/s", "rps", (r) => rate(r.traffic.rps), true],
  ["Requests", "requests", (r) => int(r.traffic.requests), true],
  ["p50", "", (r) => ms(r.traffic.p50_ms), true],
  ["p99", "p99", (r) => ms(r.traffic.p99_ms), true],
  ["Ours", "ours", (r) => int(r.traffic.errors_ours), true],
  ["Upstream", "upstream", (r) => int(r.traffic.errors_upstream), true],
  ["Last hit", "last", (r) => ago(r.traffic.last_hit_seconds_ago), true],
];
const VIEWS = {
  overview: { title: "Overview" },
  traffic: { title: "Traffic" },
  routes: { title: "Routes", count: (o) => o.routes, empty: "No Ingress of this class has a rule yet.", search: true, only: ["healthy", "degraded", "down", "closed"], columns: [
    ["State", "state", (r) => badge(r.state, r.reason)],
    ["Host", "host", (r) => soft(r.host)],
    ["Path", "path", (r) => [soft(r.path), el("span", { class: "why" }, r.type, " ", /[*]/.test(r.host) || r.type === "Regex" ? null
      : link("explain", "http://" + r.host + r.path, "explain"), r.traffic.requests ? [" ", link("traffic", r.ingress, "graphs")] : null)]],
    ["Ingress", "ingress", (r) => [r.ingress, el("span", { class: "why" }, "to ", link("services", r.service, r.service))]],
    ["Endpoints", "", (r) => int(r.endpoints), true], ...traffic] },
  services: { title: "Services", count: (o) => o.services, empty: "No route leads to a Service yet.", search: true, only: ["healthy", "degraded", "down"], columns: [
    ["State", "state", (s) => badge(s.state, s.reason)],
    ["Service", "name", (s) => s.name],
    ["Used by", "", (s) => link("routes", s.name, many(s.routes, "route")), true],
    ["Ready", "", (s) => int(s.counts.ready), true],
    ["Ejected", "", (s) => int(s.counts.ejected), true],
    ["Draining", "", (s) => int(s.counts.draining), true],
    ["Endpoints", "", (s) => endpointList(s)]] },
  certificates: { title: "Certificates", count: (o) => o.certificates, empty: "No Ingress asks for TLS.", search: true, only: ["valid", "expiring", "unusable"], columns: [
    ["State", "state", (c) => badge(c.state, c.reason)],
    ["Host", "host", (c) => soft(c.host)],
    ["Secret", "secret", (c) => c.secret || "default"],
    ["Ingress", "ingress", (c) => c.ingress || "–"],
    ["Names", "", (c) => c.names.join(", ")],
    ["Days left", "days", (c) => (c.days_left === null ? "–" : int(c.days_left)), true]] },
  remarks: { title: "Conflicts", count: (o) => o.remarks, empty: "None: every Ingress is served as it asks.", search: true, only: ["refused", "approximated", "note"], columns: [
    ["Weight", "state", (r) => badge(r.severity)],
    ["Object", "object", (r) => r.object],
    ["Host", "host", (r) => (r.on ? soft(r.on) : "–")],
    ["What", "", (r) => [r.text, el("span", { class: "why" }, r.kind)]]] },
  explain: { title: "Explain" },
  fleet: { title: "Fleet", above: fleetPicture, columns: [
    ["State", "", (n) => badge(n.state, n.reason)],
    ["Node", "", (n) => [n.node || "–", n.self ? el("span", { class: "why" }, "this one") : null]],
    ["Address", "", (n) => el("a", { href: "http://" + n.address + "/" }, n.address)],
    ["Version", "", (n) => n.version || "–"],
    ["Up", "", (n) => (n.uptime_seconds === undefined ? "–" : span(n.uptime_seconds)), true],
    ["Routes", "", (n) => (n.routes === undefined ? "–" : int(n.routes)), true],
    ["req/s", "", (n) => (n.rps === undefined ? "–" : rate(n.rps)), true],
    ["p99", "", (n) => ms(n.p99_ms), true],
    ["Ours", "", (n) => (n.errors_ours === undefined ? "–" : int(n.errors_ours)), true],
    ["Upstream", "", (n) => (n.errors_upstream === undefined ? "–" : int(n.errors_upstream)), true]] },
};

function drawTabs() {
  const links = Object.entries(VIEWS).map(([name, view]) => {
    const count = view.count && state.overview ? el("span", { class: "count" }, int(view.count(state.overview.counts))) : null;
    return el("a", { href: "#" + name, "aria-current": name === state.view ? "page" : null }, view.title, count);
  });
  // Links keep their place and focus: only texts change.
  const nav = $("tabs");
  if (nav.children.length !== links.length) { nav.replaceChildren(...links); return; }
  links.forEach((link, i) => {
    const old = nav.children[i];
    old.replaceChildren(...link.childNodes);
    link.hasAttribute("aria-current") ? old.setAttribute("aria-current", "page") : old.removeAttribute("aria-current");
  });
}

function sparkline(values) {
  const most = Math.max(1, ...values);
  const points = values.map((v, i) => (i * 100) / (values.length - 1) + " " + (40 - (v * 36) / most).toFixed(1));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", "M0 40L" + points.join("L") + "L100 40Z");
  svg.append(path);
  return svg;
}

function drawOverview(o) {
  $("node").textContent = o.node || "(no node name)";
  $("about").textContent = [o.address, "landfall-ingress " + o.version, "up " + span(o.uptime_seconds), o.leader ? "writes status" : ""].filter(Boolean).join(" · ");
  const badge = $("state");
  badge.textContent = o.state;
  badge.className = "badge " + (KINDS[o.state] || "");
  const t = o.traffic;
  const tile = (title, key, value, note, more) => el("div", { class: "tile" }, el("h3", {}, title),
    el("div", { class: "value" + (more && more.bad ? " bad-text" : ""), "data-api": key, "data-value": t[key] === null ? "" : t[key] }, value),
    el("div", { class: "note" }, note), (more && more.chart) || null);
  $("tiles").replaceChildren(
    tile("Requests per second", "rps", rate(t.rps), int(t.requests) + " since start", { chart: sparkline(o.history) }),
    tile("p50", "p50_ms", ms(t.p50_ms), "to the answer's head"),
    tile("p99", "p99_ms", ms(t.p99_ms), "over 1 to 2 min"),
    tile("Our errors", "errors_ours", int(t.errors_ours), "made by this proxy", { bad: t.errors_ours > 0 }),
    tile("Upstream 5xx", "errors_upstream", int(t.errors_upstream), "given by endpoints", { bad: t.errors_upstream > 0 }),
    tile("In flight", "in_flight", int(t.in_flight), int(o.connections.open) + " connections"));
}

function meter(counts) {
  const total = counts.reduce((sum, [, n]) => sum + n, 0);
  const bar = el("div", { class: "meter", role: "img", "aria-label": counts.map(([k, n]) => n + " " + k).join(", ") });
  for (const [kind, n] of counts) if (n) { const part = el("i", { class: KINDS[kind] === "good" ? "" : KINDS[kind] }); part.style.width = (100 * n) / total + "%"; bar.append(part); }
  return [bar, el("p", {}, counts.filter(([k, n], i) => n || i === 0).map(([k, n]) => int(n) + " " + k).join(" · "))];
}

function facts(rows) { return el("dl", {}, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])); }

function viewOverview(o) {
  const cards = o.entry_points.map((e) => el("div", { class: "card" }, el("h3", {}, "Entry point " + e.name), facts([
    ["Listens", e.address || "–"],
    ["Requests", int(e.traffic.requests) + ", " + rate(e.traffic.rps) + " per second"],
    ["p50 / p99", ms(e.traffic.p50_ms) + " / " + ms(e.traffic.p99_ms)],
    ["Answers", Object.entries(e.traffic.classes).filter(([, n]) => n).map(([c, n]) => c + " " + int(n)).join(" · ") || "none yet"],
    ["Our errors", Object.entries(e.traffic.reasons).map(([r, n]) => r + " " + int(n)).join(" · ") || "none"],
    ["Upstream errors", int(e.traffic.errors_upstream)],
    ["Cut short", int(e.traffic.cut)],
    ["Bytes", bytes(e.traffic.bytes_in) + " in, " + bytes(e.traffic.bytes_out) + " out"]])));
  const h = o.health;
  const words = ["healthy", "degraded", "down", "closed"];
  const c = h.certificates;
  cards.push(el("div", { class: "card", id: "health" }, el("h3", {}, el("a", { href: "#routes" }, "Routes")), meter(words.map((k) => [k, h.routes[k] || 0])),
    el("h3", {}, el("a", { href: "#services" }, "Services")), meter(words.map((k) => [k, h.services[k] || 0])),
    el("h3", {}, "Endpoints"), meter(["ready", "draining", "ejected"].map((k) => [k, h.endpoints[k]])),
    el("h3", {}, el("a", { href: "#certificates" }, "Certificates")), el("p", {}, int(o.counts.certificates),
      c.first_days_left === null ? "" : el("span", { class: c.expiring ? "bad-text" : null }, c.first_days_left < 0 ? " · one has expired" : " · the first ends in " + many(c.first_days_left, "day")),
      c.faulty ? el("span", { class: "bad-text" }, " · " + int(c.faulty) + " unusable") : null),
    el("h3", {}, el("a", { href: "#remarks" }, "Conflicts")), el("p", {}, o.counts.remarks ? Object.entries(h.remarks).filter(([, n]) => n).reverse().map(([k, n]) => int(n) + " " + k).join(" · ") : "none")));
  cards.push(el("div", { class: "card" }, el("h3", {}, "This proxy"), facts([
    ["Connections", Object.entries(o.connections.protocols).map(([p, n]) => p + " " + n).join(" · ")],
    ["Tables taken over", int(o.table.taken_over)],
    ["API watch errors", int(o.table.watch_errors)],
    ["Failovers", int(o.table.failovers)],
    ["Access log", o.access_log.mode + (o.access_log.dropped ? ", " + int(o.access_log.dropped) + " lines dropped" : "")],
    ["Dashboard", (o.dashboard.host || "no host of its own") + (o.dashboard.authentication ? ", with password" : ", open")]])));
  return el("div", { class: "grid" }, cards);
}

function table(view, items) {
  const name = state.view;
  const sort = state.sort[name] || {};
  const head = view.columns.map(([title, key, , number]) => {
    const direction = key && sort.key === key ? (sort.down ? "descending" : "ascending") : null;
    const label = key ? el("button", { type: "button", on: { click: () => { state.sort[name] = { key, down: sort.key === key ? !sort.down : !!number }; state.offset = 0; redraw(true); } } }, title) : title;
    return el("th", { scope: "col", class: number ? "num" : null, "aria-sort": direction }, label);
  });
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows(view, items)));
}
const rows = (view, items) => items.map((item) => el("tr", {}, view.columns.map(([title, , cell, number]) =>
  el("td", { class: number ? "num" : null, "data-label": title }, el("div", {}, cell(item))))));

function query() {
  const sort = state.sort[state.view] || {};
  const parts = { q: state.q, state: state.only, sort: sort.key, order: sort.key ? (sort.down ? "desc" : "asc") : "", offset: state.offset || "", limit: PAGE };
  return Object.entries(parts).filter(([, v]) => v !== undefined && v !== "").map(([k, v]) => k + "=" + encodeURIComponent(v)).join("&");
}

function pages(list) {
  const move = (by) => () => { state.offset = Math.max(0, state.offset + by); redraw(true); };
  const end = Math.min(list.total, list.offset + list.items.length);
  return [el("span", { class: "dim" }, list.total ? int(list.offset + 1) + " to " + int(end) + " of " + int(list.total) : "0"),
    el("button", { type: "button", disabled: list.offset === 0, on: { click: move(-PAGE) } }, "Previous"),
    el("button", { type: "button", disabled: end >= list.total, on: { click: move(PAGE) } }, "Next")];
}

const nothing = (view) => (state.q || state.only || !view.empty ? "Nothing fits." : view.empty);

let listView = "";
function drawList(view, list, fresh) {
  const body = $("rows");
  const none = list.items.length === 0;
  if (fresh || listView !== state.view || !body) {
    const focus = document.activeElement && document.activeElement.textContent;
    listView = state.view;
    const holder = el("div", { id: "rows" }, table(view, list.items), none ? el("p", { class: "empty" }, nothing(view)) : null);
    if (body && $("search") === document.activeElement) body.replaceWith(holder);
    else if (body && !fresh) body.replaceWith(holder);
    else if (body) { body.replaceWith(holder); const same = [...holder.querySelectorAll("th button")].find((b) => b.textContent === focus); if (same) same.focus(); }
    else {
      const search = view.search ? el("input", { id: "search", name: "q", type: "search", placeholder: "Search", "aria-label": "Search " + view.title, value: state.q,
        on: { input: (e) => { state.q = e.target.value; state.offset = 0; redraw(true); } } }) : null;
      const only = view.only ? el("select", { name: "state", "aria-label": "State", on: { change: (e) => { state.only = e.target.value; state.offset = 0; redraw(true); } } },
        el("option", { value: "" }, "All states"), view.only.map((o) => el("option", { value: o, selected: o === state.only }, o))) : null;
      $("view").replaceChildren(el("div", { class: "card" }, el("div", { class: "bar" }, el("h2", {}, view.title), search, only), view.above ? el("div", { id: "above" }) : null, holder, el("div", { class: "pages", id: "pages" })));
    }
  } else {
    body.querySelector("tbody").replaceChildren(...rows(view, list.items));
    const empty = body.querySelector(".empty");
    if (none && !empty) body.append(el("p", { class: "empty" }, nothing(view)));
    if (!none && empty) empty.remove();
  }
  if (view.above) $("above").replaceChildren(view.above(list.items));
  const foot = $("pages");
  if (foot && view.search) {
    const at = [...foot.querySelectorAll("button")].indexOf(document.activeElement);
    foot.replaceChildren(...pages(list));
    if (at >= 0) { const button = foot.querySelectorAll("button")[at]; (button.disabled ? foot.querySelector("button:not(:disabled)") || $("view") : button).focus(); }
  }
}

async function redraw(fresh) {
  const name = state.view;
  const view = VIEWS[name];
  const turn = ++state.turn;
  const current = () => turn === state.turn;
  try {
    const overview = await get("overview");
    if (!current()) return;
    state.overview = overview;
    drawOverview(overview);
    drawTabs();
    if (name === "overview" || name === "traffic") {
      const series = await get("series?" + (name === "overview" ? "limit=0" : "limit=" + GRAPHED + "&q=" + encodeURIComponent(state.q)));
      if (!current()) return;
      if (name === "overview") $("view").replaceChildren(seriesCard(series), viewOverview(overview));
      else viewTraffic(series);
    }
    else if (name === "explain") { if (!$("x-url")) $("view").replaceChildren(viewExplain(state.q)); }
    else {
      const list = await get(name + "?" + query());
      if (!current()) return;
      drawList(view, list, fresh);
    }
    $("fresh").textContent = state.paused ? "paused" : "live";
    document.body.dataset.view = name;
    document.body.dataset.turn = turn;
    const fault = $("fault");
    if (fault) fault.remove();
  } catch (error) {
    if (!current()) return;
    if (!$("fault")) $("tiles").before(el("p", { id: "fault", class: "fault", role: "alert" }, ""));
    $("fault").textContent = "This proxy does not answer: " + error.message;
    $("state").textContent = "no answer";
    $("state").className = "badge bad";
  }
}

function navigate() {
  const [name, ...rest] = location.hash.slice(1).split("=");
  if (name === "view") return;
  const view = VIEWS[name] ? name : "overview";
  let q = "";
  try { q = decodeURIComponent(rest.join("=")); } catch { /* Typed by hand, and not as it should be. */ }
  if (view !== state.view || q !== state.q) {
    Object.assign(state, { view, q, only: "", offset: 0 });
    listView = "";
    $("view").replaceChildren();
  }
  drawTabs();
  redraw(true);
}

$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  $("fresh").textContent = state.paused ? "paused" : "live";
  if (!state.paused) redraw(false);
});
window.addEventListener("hashchange", navigate);
setInterval(() => { if (!state.paused && !document.hidden) redraw(false); }, PERIOD);
navigate();
