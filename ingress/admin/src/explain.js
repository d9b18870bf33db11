"use strict";
// The view that explains a request; page.js has what it is made of.

function viewExplain(asked) {
  const choice = (id, label, values) => el("select", { id, name: id.slice(2), "aria-label": label }, values.map(([value, text]) => el("option", { value }, text || value)));
  const input = (id, attributes) => el("input", { id, name: id.slice(2), type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  const method = choice("x-method", "Method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map((m) => [m]));
  const url = input("x-url", { placeholder: "https://host.example/path?query", required: true, value: asked });
  const headers = el("textarea", { id: "x-headers", name: "headers", placeholder: "Cookie: canary=always", spellcheck: "false" });
  const client = input("x-client", { placeholder: "address; yours when empty" });
  const http = choice("x-http", "Version", [["1.1", "HTTP/1.1"], ["2", "HTTP/2"]]);
  const answer = el("div", { id: "x-answer", "aria-live": "polite" });
  const submit = async (event) => {
    if (event) event.preventDefault();
    const parts = { method: method.value, url: url.value.trim(), http: http.value, client: client.value.trim() };
    const lines = headers.value.split("\n").filter((l) => l.trim()).map((l) => ["header", l.trim()]);
    const text = [...Object.entries(parts), ...lines].map(([k, v]) => k + "=" + encodeURIComponent(v)).join("&");
    try { drawExplanation(answer, await get("explain?" + text)); }
    catch (error) { answer.replaceChildren(el("p", { class: "fault" }, error.message)); }
  };
  if (asked) submit();
  return el("div", { class: "card" }, el("div", { class: "bar" }, el("h2", {}, "Explain a request"), el("span", { class: "dim" }, "Nothing is sent.")),
    el("form", { class: "explain", on: { submit } },
      el("label", { for: "x-url" }, "Request"), el("div", { class: "line" }, method, url),
      el("label", { for: "x-headers" }, "Fields"), headers,
      el("label", { for: "x-client" }, "Client"), el("div", { class: "line" }, http, client),
      el("span"), el("div", {}, el("button", { class: "primary", type: "submit" }, "Explain"))), answer);
}

const OUTCOMES = { open: "would be asked" };
const PROTOCOLS = { http1: "HTTP/1.1", h2c: "HTTP/2 in plain text", https: "HTTP/1.1 over TLS", h2: "HTTP/2 over TLS" };
// The chain of decisions: each link is what was asked, what came of it, and why. A link that answers is the last that is reached.
function chainLink(kind, what, outcome, ...why) {
  return el("li", { class: kind }, el("span", { class: "stage" }, what), " ", outcome, " ", el("span", { class: "dim" }, why));
}

function stageLink(s) {
  const word = el("span", { class: "badge " + (KINDS[s.outcome] || "") }, OUTCOMES[s.outcome] || s.outcome);
  return chainLink("met " + s.outcome.replaceAll(" ", "-"), s.stage, word, s.text);
}

function chain(x) {
  const links = [chainLink("passes", "request", el("code", {}, x.method + " " + x.host + x.path), "by " + x.client.address + " over " + x.client.scheme + " and HTTP/" + x.http)];
  if (x.winner) {
    links.push(chainLink("passes", "host", el("code", {}, x.winner.host), many(x.others.length + 1, "rule"), " looked at"));
    links.push(chainLink("passes", "rule", el("code", {}, x.winner.path + " " + x.winner.type), x.winner.ingress + ": " + x.winner.why));
  } else links.push(chainLink("answers", "rule", el("span", { class: "badge bad" }, "none"), x.answer.text));
  links.push(...x.stages.map(stageLink));
  const stopped = x.answer.status || !x.destinations.length;
  if (stopped) links.push(chainLink("answers end", "answer", el("span", { class: "badge " + (x.answer.status >= 400 ? "bad" : "good") }, x.answer.status || "–"), x.answer.text));
  else links.push(el("li", { class: "passes end" }, el("span", { class: "stage" }, x.destinations.length > 1 ? "one of" : "goes to"), el("div", { class: "fork" }, x.destinations.map((d) => {
    const bar = el("i", {});
    bar.style.width = 100 * d.share + "%";
    return el("div", { class: "branch" }, el("strong", {}, d.service), el("div", { class: "meter", role: "img", "aria-label": Math.round(100 * d.share) + " % of such requests" }, bar),
      el("span", { class: "dim" }, Math.round(1000 * d.share) / 10 + " % · " + many(d.endpoints.length, "endpoint")));
  }))));
  return el("ol", { class: "stages chain" }, links);
}

const fieldList = (fields) => facts(fields.map(([name, value]) => [el("code", {}, name), el("code", {}, value)]));

function destination(d) {
  const share = d.share < 1 ? Math.round(d.share * 1000) / 10 + " %" : "";
  return el("div", { class: "way" }, el("div", {}, link("services", d.service, d.service), " ", el("span", { class: "dim" }, [share, d.why, "spoken to by " + PROTOCOLS[d.protocol]].filter(Boolean).join(" · "))),
    d.endpoints.length ? null : el("span", { class: "badge bad" }, "no endpoint"), el("div", { class: "dim" }, d.how), d.endpoints.slice(0, SHOWN).map(endpointLine),
    d.endpoints.length > SHOWN ? el("div", { class: "dim" }, int(d.endpoints.length - SHOWN) + " more") : null);
}

function drawExplanation(into, x) {
  const c = x.client;
  const parts = [el("div", { class: "verdict" + (x.answer.status >= 400 ? " bad" : "") }, el("strong", {}, x.answer.text),
    el("div", { class: "dim" }, x.method + " " + x.host + x.path + (x.path !== x.asked_path ? " (asked as " + x.asked_path + ")" : "")
      + ", by " + c.address + " over " + c.scheme + " and HTTP/" + x.http))];
  parts.push(el("h3", {}, "The chain of decisions"), chain(x));
  if (x.winner) parts.push(el("h3", {}, "The rule that won"), facts([["Rule", [el("code", {}, x.winner.host + " " + x.winner.path), " " + x.winner.type]], ["Ingress", x.winner.ingress],
    ["Service", x.winner.service], ["Why", x.winner.why]]));
  if (x.destinations.length) parts.push(el("h3", {}, "Where it may go"), x.destinations.map(destination));
  if (x.steps.length) parts.push(el("h3", {}, "How its host was found"), el("ul", {}, x.steps.map((s) => el("li", {}, s))));
  if (x.others.length) parts.push(el("h3", {}, "The rules that lost"), table({ columns: [["Host", "", (r) => soft(r.host)], ["Path", "", (r) => [soft(r.path), " " + r.type]],
    ["Ingress", "", (r) => r.ingress], ["Why", "", (r) => r.why]] }, x.others));
  if (x.forwarded) parts.push(el("h3", {}, "As the endpoint would get it"), el("p", {}, el("code", {}, x.forwarded.method + " " + x.forwarded.target)), fieldList(x.forwarded.fields));
  if (x.answer_fields.length) parts.push(el("h3", {}, "What its answer would get"), fieldList(x.answer_fields));
  into.replaceChildren(...parts.flat());
}
