// Two runs beside one another.
function difference(a, b) {
  const d = b - a;
  return el("span", { class: d > 0 ? "up" : d < 0 ? "down" : "" }, d ? `${d > 0 ? "+" : "−"}${num(Math.abs(d))}` : "0");
}
function twoRuns() {
  const [a, b] = data.runs;
  const tile = (k) => el("li", {}, el("b", {}, num(b.counts[k])), `${t(k)} (`, difference(a.counts[k], b.counts[k]), ")");
  const value = (v) => (v === null ? t("off") : v === "on" ? t("on") : el("code", {}, JSON.stringify(v)));
  const fields = data.fields.length ? tableOf([[t("field"), ""], [t("before"), ""], [t("after"), ""]], data.fields.map(([f, x, y]) => [[f, ""], [value(x), ""], [value(y), ""]])) : el("p", {}, t("noFields"));
  const about = tableOf([["", ""], [t("recipe"), ""], ["", ""]], [[t("before"), a], [t("after"), b]].map(([w, r]) => [[`${w}: ${r.name}`, ""], [`${r.recipe} `, ""], [`${r.created} · tuwen ${r.version} · ${r.runner}`, "soft"]]));
  return section("summary", "summary", el("ul", { class: "sums" }, ...["inputs", "kept", "dropped", "failed"].map(tile)), about, el("h3", {}, t("changed")), fields);
}
function twoFunnels() {
  const cell = (n) => [n === null ? "–" : num(n), "n"];
  const rows = data.stages.map(([s, i, k, j, l]) => [[s, ""], cell(i), cell(k), cell(j), cell(l), [difference(k === null ? 0 : i - k, l === null ? 0 : j - l), "n"]]);
  const reasons = data.reasons.map(([r, x, y]) => [[say(r), ""], [num(x), "n"], [num(y), "n"], [difference(x, y), "n"]]);
  const two = (w) => [`${t(w)} ${t("read")}`, `${t(w)} ${t("kept")}`].map((h) => [h, "n"]);
  return section("funnel", "funnel", tableOf([[t("stage"), ""], ...two("before"), ...two("after"), [`${t("dropped")} ±`, "n"]], rows), el("h3", {}, t("reasons")), tableOf([["", ""], [t("before"), "n"], [t("after"), "n"], [t("difference"), "n"]], reasons));
}
function twoVerdicts() {
  if (!data.changed) return section("pairs", "verdicts", el("p", {}, t("noChange")));
  const name = ([was, now]) => `${was}>${now}`;
  if (!state.change) state.change = name(data.changes[0]);
  const chip = (c) => el("button", { type: "button", class: `reason ${c[1] === "kept" ? "kept" : "drop"}`, "aria-pressed": String(name(c) === state.change), "data-change": name(c), onclick: () => { state.change = name(c); redraw("pairs", twoVerdicts(), `[data-change="${CSS.escape(name(c))}"]`); } }, `${say(c[0])} → ${say(c[1])} `, el("b", {}, num(c[2])));
  const list = data.shown[state.change] || [];
  return section("pairs", "verdicts", el("p", { class: "soft" }, num(data.changed)), el("div", { class: "chips", role: "group", "aria-label": t("choose") }, ...data.changes.map(chip)), el("div", { class: "pairs", id: "shown" }, ...list.map((p) => pair(p))));
}
