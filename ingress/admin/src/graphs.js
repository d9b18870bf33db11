"use strict";
// Pictures: the last quarter of an hour as graphs, and the fleet; page.js has what they are made of.

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const WIDE = 300;
const HIGH = 80;

// A scale that ends at a round number.
function ceiling(most) {
  if (!(most > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * unit).find((end) => end >= most);
}

// The way through the values of one line. Where there is none it is interrupted; one that stands alone is a short dash.
function way(values, xs, end, closed) {
  const y = (value) => (HIGH - (value / end) * (HIGH - 4)).toFixed(1);
  const runs = [];
  values.forEach((value, i) => {
    if (value === null) return;
    if (i === 0 || values[i - 1] === null) runs.push([]);
    runs[runs.length - 1].push([xs[i], y(value)]);
  });
  return runs.map((run) => {
    const points = run.length > 1 ? run : [[run[0][0] - 2, run[0][1]], run[0]];
    const line = points.map(([x, at]) => Number(x).toFixed(1) + " " + at).join("L");
    return "M" + (closed ? points[0][0] + " " + HIGH + "L" + line + "L" + points[points.length - 1][0] + " " + HIGH + "Z" : line);
  }).join("");
}

// One graph: lines are [name, values, class]; what a value is in words is said by `text`.
function graph(title, series, lines, text) {
  const xs = series.seconds_ago.map((ago) => WIDE - (ago / series.range_seconds) * WIDE);
  const all = lines.flatMap(([, values]) => values).filter((value) => value !== null);
  const end = ceiling(Math.max(0, ...all));
  const latest = (values) => { const known = values.filter((value) => value !== null); return known.length ? text(known[known.length - 1]) : "–"; };
  const highest = (values) => { const known = values.filter((value) => value !== null); return known.length ? text(Math.max(...known)) : "–"; };
  const svg = draw("svg", { viewBox: "0 0 " + WIDE + " " + HIGH, preserveAspectRatio: "none", role: "img",
    "aria-label": title + ": " + lines.map(([name, values]) => name + " now " + latest(values) + ", at most " + highest(values)).join("; ") },
    ...[0.5, 1].map((part) => draw("path", { class: "rule", d: "M0 " + (HIGH - part * (HIGH - 4)) + "H" + WIDE })),
    ...lines.slice(0, 1).map(([, values, kind]) => draw("path", { class: "area " + kind, d: way(values, xs, end, true) })),
    ...lines.map(([, values, kind]) => draw("path", { class: "line " + kind, d: way(values, xs, end, false) })));
  return el("figure", { class: "graph" }, el("figcaption", {}, el("span", { class: "what" }, title), el("span", { class: "dim" }, text(end))), svg,
    el("div", { class: "axis dim" }, el("span", {}, Math.round(series.range_seconds / 60) + " min ago"), el("span", {}, "now")),
    el("div", { class: "legend" }, lines.map(([name, values, kind]) => el("span", { class: "key " + kind }, name + " ", el("strong", {}, latest(values))))));
}

const perSecond = (values, series) => values.map((n, i) => n / Math.max(1, series.lengths[i]));

// The graphs of one set of columns; connections are of the whole proxy alone.
function graphs(series, of) {
  const all = [graph("Requests per second", series, [["requests", perSecond(of.requests, series), "main"]], rate),
    graph("Errors per second", series, [["ours", perSecond(of.errors_ours, series), "ours"], ["endpoints", perSecond(of.errors_upstream, series), "theirs"]], rate),
    graph("Time to the answer's head", series, [["p99", of.p99_ms, "late"], ["p50", of.p50_ms, "main"]], ms)];
  if (of.connections) all.push(graph("Connections", series, [["open", of.connections, "main"]], int));
  return el("div", { class: "graphs" }, all);
}

function seriesCard(series) {
  const first = series.seconds_ago.length ? null : el("p", { class: "dim" }, "The first sample is taken ten seconds after the start.");
  return el("div", { class: "card", id: "series" }, el("h2", {}, "The last 15 minutes"), first, graphs(series, series.all));
}

// The view of graphs by route. The search keeps its place and focus, as in lists.
function viewTraffic(series) {
  const none = state.q ? "No route of that name was asked in the last 15 minutes." : "No route was asked in the last 15 minutes.";
  const routes = series.items.map((r) => el("section", { class: "route" }, el("h3", { class: "name" }, soft(r.host + r.path), " ", el("span", { class: "dim" }, r.ingress)), graphs(series, r)));
  const more = series.total - series.items.length;
  const drawn = el("div", { id: "graphs" }, routes.length ? routes : el("p", { class: "empty" }, none),
    more > 0 ? el("p", { class: "dim" }, int(more) + " less busy routes are found by searching.") : null);
  const old = $("graphs");
  if (old) { $("series").replaceWith(seriesCard(series)); old.replaceWith(drawn); return; }
  const search = el("input", { id: "search", name: "q", type: "search", placeholder: "Search", "aria-label": "Search routes", value: state.q,
    on: { input: (e) => { state.q = e.target.value; redraw(true); } } });
  $("view").replaceChildren(seriesCard(series), el("div", { class: "card" }, el("div", { class: "bar" }, el("h2", {}, "The busiest routes"), search), drawn));
}

// What most proxies serve; whoever serves something else is behind, or ahead of all others for a moment.
function usual(nodes, of) {
  const counts = new Map();
  for (const node of nodes) if (node.state !== "unreachable") counts.set(of(node), (counts.get(of(node)) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([value]) => value)[0];
}

function behind(node, nodes) {
  if (node.state === "unreachable") return "does not answer";
  const notes = [];
  if (node.table !== usual(nodes, (n) => n.table)) notes.push("other routes than most");
  if (node.version !== usual(nodes, (n) => n.version)) notes.push("another version than most");
  return notes.join(", ");
}

// The fleet: a box for each node, with what it serves, its part of all requests, and what sets it apart.
function fleetPicture(nodes) {
  const sum = nodes.reduce((total, node) => total + (node.rps || 0), 0);
  return el("div", { class: "fleet", role: "list", "aria-label": "Nodes with a proxy" }, nodes.map((node) => {
    const apart = behind(node, nodes);
    const kind = KINDS[node.state] === "bad" ? "bad" : apart ? "warn" : "good";
    const share = sum > 0 ? (node.rps || 0) / sum : 0;
    const bar = el("i", {});
    bar.style.width = 100 * share + "%";
    return el("div", { class: "node-box " + kind, role: "listitem" },
      el("div", { class: "top" }, el("strong", {}, node.node || "–"), badge(node.state)),
      (node.entry_points || []).map((entry) => el("div", { class: "serves" }, el("code", {}, entry.name + " " + (entry.address || "–")), el("span", { class: "dim" }, rate(entry.rps || 0) + " req/s"))),
      node.rps === undefined ? null : [el("div", { class: "meter", role: "img", "aria-label": Math.round(100 * share) + " % of all requests" }, bar),
        el("div", { class: "dim" }, (sum > 0 ? Math.round(100 * share) + " % of all requests · " : "") + many(node.routes, "route"))],
      el("div", { class: "notes" }, node.self ? el("span", { class: "badge" }, "this one") : null, node.leader ? el("span", { class: "badge" }, "writes status") : null,
        apart ? el("span", { class: "badge " + kind }, apart) : el("span", { class: "badge good" }, "up to date")));
  }));
}
