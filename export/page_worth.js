// What each filter bought: gains in points of R@1 with their intervals, from value.json.
function worth() {
  const w = data.worth;
  if (!w) return null;
  const says = w.verdict === "gain" ? t("worthGain", { n: w.ratio, m: Math.round(1000 * w.share) / 10 }) : t(w.verdict);
  const arms = tableOf([[t("arm"), ""], [t("pairs"), "n"], ["R@1", "n"]], w.arms.map(([name, n, r]) => [[name, ""], [num(n), "n"], [r.toFixed(1), "n"]]));
  const kinds = ["left_out", "left_out_random", "alone", "alone_random"], head = kinds.map((k) => [t(k), ""]);
  const reach = Math.max(1, ...w.stages.flatMap((s) => kinds.flatMap((k) => (s[k] || []).slice(0, 3).map((v) => Math.abs(v)))));
  const rows = w.stages.map((s) => [[s.stage, ""], [num(s.only_it), "n"], ...kinds.map((k) => [gain(s[k], reach), ""]), [s.cost === null ? "–" : num(s.cost), "n"]]);
  const stages = w.stages.length ? el("div", { class: "wide" }, tableOf([[t("stage"), ""], [t("onlyIt"), "n"], ...head, [t("perPoint"), "n"]], rows)) : null;
  return section("worth", "worth", help("worthHelp"), el("p", {}, el("b", {}, says), " ", el("span", { class: "soft" }, t("worthAsked", { n: w.samples, m: w.questions, k: w.seeds }))), el("div", { class: "arms" }, arms), stages, el("p", {}, el("a", { href: "value.html" }, t("worthAll"))));
}
function gain(g, reach) {
  if (!g) return "–";
  const [mean, low, high, verdict] = g, x = (v) => 60 + 56 * Math.max(-1, Math.min(1, v / reach));
  const cls = { gain: "up", loss: "down" }[verdict] || "soft", said = `${mean > 0 ? "+" : ""}${mean.toFixed(1)}${low === null ? "" : ` [${low.toFixed(1)}, ${high.toFixed(1)}]`}`;
  const picture = svg("svg", { class: "interval", viewBox: "0 0 120 12", "aria-hidden": "true" }, svg("line", { x1: 60, x2: 60, y1: 0, y2: 12, stroke: "var(--line)" }),
    svg("line", { x1: x(low ?? mean), x2: x(high ?? mean), y1: 6, y2: 6, stroke: "currentColor", "stroke-width": 2 }), svg("circle", { cx: x(mean), cy: 6, r: 4, fill: "currentColor" }));
  return el("span", { class: `gain ${cls}` }, picture, el("span", {}, said), verdict === "unproven" ? el("span", {}, t("unproven")) : null);
}
