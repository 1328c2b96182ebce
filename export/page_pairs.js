// Galleries: pairs per reason, duplicates side by side.
function marked(text, spans) {
  const out = document.createDocumentFragment(), chars = Array.from(text);
  let at = 0;
  for (const [a, b, category, action, rule] of spans || []) {
    if (a < at || a >= chars.length) continue;
    out.append(chars.slice(at, a).join(""), el("mark", { class: action, title: `${rule}: ${category}, ${action}` }, chars.slice(a, b).join("")));
    at = b;
  }
  out.append(chars.slice(at).join(""));
  return out;
}
function seen(p) {
  const source = p.thumb && data.thumbs[p.thumb];
  if (!source) return el("div", { class: "none" }, t("noPicture"));
  const box = el("div", { class: "see" }, el("img", { src: `data:image/jpeg;base64,${source}`, alt: p.hidden && !state.reveal ? t("hidden") : p.raw, loading: "lazy" }));
  if (p.hidden && !state.reveal) {
    box.classList.add("hidden");
    box.append(el("button", { type: "button", "aria-label": `${t("reveal")} ${p.key.slice(0, 8)}`, onclick: (e) => { box.classList.remove("hidden"); box.firstChild.alt = p.raw; e.target.remove(); } }, t("reveal")));
  }
  return box;
}
function pair(p, head) {
  const soft = (label, text) => el("p", { class: "soft" }, `${label}: `, text);
  const facts = [p.score !== undefined ? `${t("score")} ${p.score}` : "", p.size || "", p.stage || ""].filter(Boolean).join(" · ");
  const because = (p.because || []).map(([name, columns, value, sign, threshold]) => el("p", { class: "because" }, `${columns} ${num(value)} ${sign} ${num(threshold)} (${name})`));
  const kids = [seen(p), head ? el("b", {}, head) : null, el("p", {}, marked(p.raw, p.spans)), p.reason ? el("p", { class: "soft" }, say(p.reason)) : null, ...because];
  if (p.caption !== undefined) kids.push(soft(t("ships"), p.caption));
  if (p.synthetic) kids.push(soft(t("synthetic"), p.synthetic));
  if (p.negatives) kids.push(el("details", {}, el("summary", { class: "soft" }, `${t("negatives")} (${p.negatives.length})`), ...p.negatives.map(([kind, text]) => soft(kind, text))));
  if (p.detail) kids.push(el("p", { class: "soft" }, p.detail));
  const key = el("button", { type: "button", class: "key", title: t("why"), "aria-label": `${t("why")} ${p.key}`, onclick: () => copy(`curate why RUN ${p.key}`) }, p.key.slice(0, 10));
  kids.push(el("p", { class: "soft facts" }, `${facts} `, key));
  return el("article", { class: "pair" }, ...kids);
}
const counted = () => {
  const n = { kept: data.run.counts.kept };
  for (const s of Object.values(data.stages)) for (const [r, c] of [...Object.entries(s.dropped), ...Object.entries(s.failures)]) n[r] = (n[r] || 0) + c;
  return n;
};
const failing = () => new Set(Object.values(data.stages).flatMap((s) => Object.keys(s.failures)));
function gallery() {
  const counts = counted(), fails = failing();
  const chip = (r) => el("button", { type: "button", class: `reason ${r === "kept" ? "kept" : fails.has(r) ? "fail" : "drop"}`, "aria-pressed": String(r === state.reason), "data-reason": r, onclick: () => { state.reason = r; drawPairs(`[data-reason="${r}"]`); } }, `${say(r)} `, el("b", {}, num(counts[r] || 0)));
  const filter = el("input", { type: "search", id: "filter", value: state.filter, "aria-label": t("filter"), placeholder: t("filter"), oninput: () => { state.filter = filter.value; fill(); } });
  const reveal = el("input", { type: "checkbox", id: "reveal", checked: state.reveal, onchange: () => { state.reveal = reveal.checked; fill(); drawTwins(); } });
  const legend = el("span", { class: "soft" }, ...["mask", "cut", "flag"].flatMap((a) => [el("mark", { class: a }, t(a)), " "]));
  const box = el("div", { class: "pairs", id: "shown" }), count = el("p", { class: "soft", role: "status", id: "count" });
  const fill = () => {
    const all = data.gallery[state.reason] || [], wanted = state.filter.trim().toLowerCase();
    const list = all.filter((p) => !wanted || [p.raw, p.caption, p.synthetic, p.detail, p.key, p.url].some((v) => v && v.toLowerCase().includes(wanted)));
    count.textContent = `${say(state.reason)}: ${t("shown", { n: list.length, m: counts[state.reason] || all.length })}`;
    box.replaceChildren(...(list.length ? list.map((p) => pair(p)) : [el("p", {}, t("nothing"))]));
  };
  const made = section("pairs", "pairs", help("pairsHelp"), el("div", { class: "chips", role: "group", "aria-label": t("choose") }, ...Object.keys(data.gallery).map(chip)), el("div", { class: "picks" }, filter, el("label", {}, reveal, t("showHidden")), legend), count, box);
  fill();
  return made;
}
function twins() {
  if (!data.twins.length) return null;
  const box = data.twins.map((w) => el("div", { class: "twin" }, el("h3", {}, `${w.kind}${w.gone.detail ? ` · ${w.gone.detail}` : ""}`), el("div", {}, pair({ ...w.gone, detail: undefined }, t("gone")), pair(w.stays, t("stays")))));
  return section("duplicates", "duplicates", help("duplicatesHelp"), el("div", { class: "twins" }, ...box));
}
function redraw(id, made, focus) {
  const old = document.getElementById(id);
  if (old && made) old.replaceWith(made);
  if (focus) document.querySelector(focus)?.focus({ preventScroll: true });
}
const drawPairs = (focus) => redraw("pairs", gallery(), focus);
const drawTwins = () => redraw("duplicates", twins());
function openReason(r) {
  state.reason = r; state.filter = ""; drawPairs();
  document.getElementById("pairs").scrollIntoView();
  document.querySelector(`[data-reason="${CSS.escape(r)}"]`)?.focus({ preventScroll: true });
}
