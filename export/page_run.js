// Summary, funnel, thresholds, two-measure pictures, composition.
function summary() {
  const { counts, splits, shards, notices } = data.run;
  const tile = (n, what) => el("li", {}, el("b", {}, num(n)), what);
  const tiles = ["inputs", "kept", "dropped", "failed"].map((k) => tile(counts[k], t(k)));
  tiles.push(tile(shards.count, `${t("shards")} · ${(shards.bytes / 1e6).toFixed(1)} MB`));
  for (const [name, n] of Object.entries(splits)) tiles.push(tile(n, name));
  const links = data.beside.map(([href, what]) => el("a", { href }, t(what)));
  return section("summary", "summary", el("ul", { class: "sums" }, ...tiles), ...notices.map((n) => el("p", { class: "notice" }, n)),
    links.length ? el("p", {}, ...links.flatMap((a, i) => (i ? [" · ", a] : [a]))) : null);
}
function funnel() {
  const all = data.run.counts.inputs || 1, box = el("div", { class: "flow" });
  let quiet = [];
  const flush = () => { if (quiet.length) box.append(el("div", {}, el("span", { class: "name quiet" }, ""), band(quiet[0][1], all, 14), el("span", { class: "why quiet" }, `${t("quiet")}: ${quiet.map(([n]) => n).join(", ")}`))); quiet = []; };
  for (const [name, s] of Object.entries(data.stages)) {
    if (s.in === s.kept) { quiet.push([name, s]); continue; }
    flush();
    const lost = [...Object.entries(s.dropped).map((e) => [...e, "drop"]), ...Object.entries(s.failures).map((e) => [...e, "fail"])].sort((a, b) => b[1] - a[1]);
    const reasons = lost.map(([r, n, kind]) => el("button", { type: "button", class: `reason ${kind}`, "data-open": r, onclick: () => openReason(r) }, `${say(r)} `, el("b", {}, num(n))));
    box.append(el("div", {}, el("span", { class: "name" }, el("b", {}, name), el("span", { class: "soft" }, `${num(s.in)} → ${num(s.kept)}`)), band(s, all, 46), el("span", { class: "why" }, ...reasons)));
  }
  flush();
  return section("funnel", "funnel", help("funnelHelp"), box);
}
function band(s, all, height) {
  // What stays goes straight down; what is lost bends to the right, where its reasons stand.
  const w = (n) => 90 * n / all, kept = w(s.kept), dropped = kept + w(sum(s.dropped)), h = height;
  const bend = (a, b, cls) => svg("path", { class: cls, d: `M ${a} 0 L ${b} 0 C ${b} ${h * 0.5} ${b + 2} ${h * 0.5} 100 ${h * 0.5} L 100 ${h * 0.5 + Math.max(1.5, (b - a) * h / 100)} C ${a + 1} ${h * 0.5 + Math.max(1.5, (b - a) * h / 100)} ${a} ${h * 0.6} ${a} 0 Z` });
  const kids = [svg("rect", { class: "kept-fill", x: 0, y: 0, width: Math.max(kept, 0.4), height: h })];
  if (sum(s.dropped)) kids.push(bend(kept, dropped, "drop-fill"));
  if (s.failed) kids.push(bend(dropped, w(s.in), "fail-fill"));
  return el("div", { class: "band", style: `min-height:${h}px` }, svg("svg", { viewBox: `0 0 100 ${h}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...kids));
}

const asValue = (v) => (v === true ? "true" : v === false ? "false" : String(v));
function thresholds() {
  const binds = (c) => Math.max(...c.kept.map((k, i) => k + c.unmeasured[i])) > c.kept[c.now] + c.unmeasured[c.now];
  const busy = data.controls.filter(binds), quiet = data.controls.filter((c) => !binds(c));
  const grid = (list) => el("div", { class: "grid" }, ...list.map(control));
  const rest = quiet.length ? el("details", { id: "quiet" }, el("summary", {}, `${num(quiet.length)} ${t("quietThresholds")}`), grid(quiet)) : null;
  return section("thresholds", "thresholds", help("thresholdsHelp"), grid(busy), rest);
}
function control(c) {
  const told = el("p", { class: "told" }), after = el("p", { class: "soft" }), more = el("p", { class: "soft" }), shown = el("span", {}), set = el("code", {}), at = state.moved.get(c.name) ?? c.now;
  const title = pick(c.title), copySet = el("button", { type: "button", "aria-label": `${t("copy")} --set ${c.name}`, onclick: () => copy(set.textContent) }, t("copy"));
  const back = el("button", { type: "button", "aria-label": `${t("reset")} ${c.name}` }, t("reset"));
  const numeric = typeof c.stops[0] === "number";
  const bars = numeric ? barsOf(c) : null;
  let input;
  const show = (i) => {
    i === c.now ? state.moved.delete(c.name) : state.moved.set(c.name, i);
    const n = c.kept[i], value = asValue(c.stops[i]);
    shown.textContent = numeric ? `${c.least ? "≥" : "≤"} ${value}${/^(|share|cosine)$/.test(c.unit) ? "" : ` ${c.unit}`}` : value;
    const step = n - c.kept[c.now];
    told.replaceChildren(el("b", { class: "passes" }, num(n)), ` ${t(c.phase === "measure" ? "passAll" : "passStage", { n: data.run.counts.inputs })} `,
      el("span", { class: step > 0 ? "up" : step < 0 ? "down" : "" }, step ? `(${step > 0 ? "+" : "−"}${num(Math.abs(step))})` : `(${t("same")})`));
    after.textContent = i === c.now ? t("atEnd", { n: c.final[i] }) : step > 0 ? t("atMost", { n: c.final[c.now] + step, m: c.final[c.now] }) : t("atLeast", { n: c.final[i], m: c.final[c.now] });
    more.textContent = c.unmeasured[i] ? t("unmeasured", { n: c.unmeasured[i] }) : "";
    set.textContent = `--set ${c.name}=${value}`;
    back.hidden = i === c.now;
    if (numeric) { input.value = i; input.setAttribute("aria-valuetext", `${value}: ${num(n)}`); bars.move(i); }
    changeBar();
  };
  if (numeric) {
    input = el("input", { type: "range", min: 0, max: c.stops.length - 1, step: 1, value: at, "aria-label": `${title}: ${c.name}`, "data-control": c.name, oninput: () => show(+input.value) });
  } else {
    const radio = (v, i) => el("label", {}, el("input", { type: "radio", name: c.name, value: i, checked: i === at, "data-control": c.name, onchange: () => show(i) }), ` ${asValue(v)}`);
    input = el("fieldset", { class: "switch" }, el("legend", { class: "out-of-sight" }, `${title}: ${c.name}`), ...c.stops.map(radio));
  }
  back.addEventListener("click", () => { if (!numeric) input.querySelector(`input[value="${c.now}"]`).checked = true; show(c.now); });
  const ends = numeric ? el("div", { class: "ends" }, el("span", {}, num(c.stops[0])), el("span", {}, t("now", { n: c.stops[c.now] })), el("span", {}, num(c.stops[c.stops.length - 1]))) : null;
  const panel = el("div", { class: "panel", "data-panel": c.name }, el("h3", { title: c.about }, title, shown), el("p", { class: "soft" }, `${c.name} · ${c.columns.join(", ")}`), bars ? bars.node : null, input, ends, told, after, more, el("div", { class: "set" }, set, copySet, back));
  show(at);
  return panel;
}
function barsOf(c) {
  const n = c.stops.length - 1, diff = (counts) => counts.slice(1).map((v, i) => Math.abs(v - counts[i]));
  const all = diff(c.all), own = diff(c.kept), most = Math.max(1, ...all), h = (v) => (v ? Math.max(2, 96 * Math.sqrt(v / most)) : 0), w = n ? 300 / n : 300;
  const picture = svg("svg", { class: "bars", viewBox: "0 0 300 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const bar = (v, i, cls) => svg("rect", { class: cls, x: i * w + 0.5, width: Math.max(0.8, w - 1), y: 100 - h(v), height: h(v) });
  all.forEach((v, i) => picture.append(bar(v, i, "pale-fill")));
  const front = own.map((v, i) => bar(v, i, "kept-fill"));
  const line = (extra) => svg("line", { y1: 0, y2: 100, stroke: "var(--fg)", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke", ...extra });
  const moved = line({}), now = line({ "stroke-dasharray": "3 3", x1: c.now * w, x2: c.now * w });
  picture.append(...front, now, moved);
  const move = (i) => {
    front.forEach((b, k) => b.setAttribute("class", (c.least ? k >= i : k < i) ? "kept-fill" : "drop-fill"));
    moved.setAttribute("x1", i * w); moved.setAttribute("x2", i * w);
  };
  return { node: picture, move };
}
function changeBar() {
  const bar = document.getElementById("change"), named = Object.fromEntries(data.controls.map((c) => [c.name, c]));
  const sets = [...state.moved].map(([name, i]) => `--set ${name}=${asValue(named[name].stops[i])}`);
  bar.hidden = !sets.length;
  const command = `curate replay RUN -o OUT ${sets.join(" ")}`;
  bar.replaceChildren(el("span", {}, t("command")), el("code", { id: "command" }, command), copyButton(command), el("button", { type: "button", onclick: () => { state.moved.clear(); draw(); } }, t("reset")));
}

function measures() {
  const { axes } = data.pictures;
  if (axes.length < 2) return null;
  return section("measures", "measures", help("measuresHelp"), el("div", { class: "pictures" }, ...state.shown.map((_, i) => picture(i))));
}
function picture(which) {
  const { axes, cells, size } = data.pictures, [x, y] = state.shown[which], pad = 46;
  const choose = (k, label) => {
    const options = axes.map((a, i) => el("option", { value: i, selected: i === state.shown[which][k] }, pick(a.title)));
    const change = (e) => { state.shown[which][k] = +e.target.value; redraw("measures", measures(), `[data-axis="${which}${k}"]`); };
    return el("label", {}, t(label), el("select", { "data-axis": `${which}${k}`, onchange: change }, ...options));
  };
  const flat = cells[x < y ? `${x},${y}` : `${y},${x}`] || [], most = Math.max(1, ...flat.filter((_, k) => k % 4 === 2)), side = 400 / size;
  const drawn = svg("svg", { viewBox: `0 0 ${400 + pad + 10} ${400 + pad}`, role: "img", "aria-label": `${pick(axes[x].title)} × ${pick(axes[y].title)}` }, svg("rect", { x: pad, y: 0, width: 400, height: 400, fill: "none", stroke: "var(--line)" }));
  for (let k = 0; k < flat.length; k += 4) {
    const [a, b, n, kept] = flat.slice(k, k + 4), across = x < y ? a : b, up = x < y ? b : a;
    const colour = `color-mix(in srgb, var(--keep) ${Math.round(100 * kept / n)}%, var(--drop))`, depth = (0.25 + 0.75 * Math.log1p(n) / Math.log1p(most)).toFixed(3);
    drawn.append(svg("rect", { x: pad + across * side, y: 400 - (up + 1) * side, width: side - 0.6, height: side - 0.6, fill: colour, "fill-opacity": depth }, svg("title", {}, t("pairsInCell", { n, m: kept }))));
  }
  const place = (a) => (a.threshold - a.low) / (a.high - a.low) * 400, inside = (v) => v >= 0 && v <= 400, [ax, ay] = [axes[x], axes[y]], px = place(ax), py = 400 - place(ay);
  const line = (ends) => drawn.append(svg("line", { stroke: "var(--fg)", "stroke-dasharray": "4 3", ...ends }));
  if (inside(px)) line({ x1: pad + px, x2: pad + px, y1: 0, y2: 400 });
  if (inside(py)) line({ x1: pad, x2: pad + 400, y1: py, y2: py });
  const label = (text, attrs) => drawn.append(svg("text", attrs, text));
  label(num(ax.low), { x: pad, y: 416 }); label(num(ax.high), { x: pad + 400, y: 416, "text-anchor": "end" }); label(pick(ax.title), { x: pad + 200, y: 434, "text-anchor": "middle" });
  label(num(ay.low), { x: pad - 4, y: 400, "text-anchor": "end" }); label(num(ay.high), { x: pad - 4, y: 10, "text-anchor": "end" });
  label(pick(ay.title), { "text-anchor": "middle", transform: "translate(12 200) rotate(-90)" });
  return el("div", {}, el("div", { class: "picks" }, choose(0, "across"), choose(1, "up")), drawn);
}

function composition() {
  const panels = Object.entries(data.tables).map(([name, rows]) => {
    const [what, of] = name.split(": "), title = of ? `${what}: ${t(of)}` : t(what);
    const share = (n, k) => el("span", { class: "share", title: `${t("kept")} ${num(k)}` }, el("i", { style: `width:${100 * k / n}%` }));
    return el("div", { class: "panel" }, el("h3", {}, title), tableOf([["", ""], [t("pairs"), "n"], [t("kept"), "n"], ["", "n"]], rows.map(([v, n, k]) => [[v, ""], [num(n), "n"], [num(k), "n"], [share(n, k), "n"]])));
  });
  return section("composition", "composition", el("div", { class: "grid" }, ...panels));
}
function theRun() {
  const rows = Object.entries(data.stages).map(([name, s]) => [[name, ""], [num(s.in), "n"], [num(s.kept), "n"], [num(sum(s.dropped)), "n"], [num(s.failed), "n"], [s.seconds.toFixed(1), "n"]]);
  const models = Object.entries(data.run.resources || {}).flatMap(([stage, held]) => Object.entries(held).map(([name, hash]) => [[stage, ""], [name, ""], [el("code", {}, hash), ""]]));
  const r = data.recipe;
  return section("run", "run", el("p", {}, `${t("recipe")}: ${r.name} `, el("code", {}, r.hash)), r.about ? el("p", { class: "soft" }, r.about) : null, r.source ? el("p", { class: "soft" }, r.source) : null,
    tableOf([[t("stage"), ""], [t("read"), "n"], [t("kept"), "n"], [t("dropped"), "n"], [t("failed"), "n"], [t("seconds"), "n"]], rows), models.length ? el("div", { style: "margin-top:16px" }, tableOf([[t("stage"), ""], ["", ""], ["", ""]], models)) : null);
}
