"use strict";
// Captions come from the web and may hold anything: they reach the page through text nodes only.
const T = {
  en: { meaning:"meaning", words:"words", key:"key", search:"Search", searchBy:"search by", searchBox:"what to search for", against:"compare with", pictures:"pictures", captions:"captions", drop:"drop a picture here, or choose one", split:"split", any:"any", order:"order by", asRead:"as in the ledger", least:"from", most:"to", turn:"largest first or smallest first", reasons:"reasons", export:"this selection:", asKeys:"keys .txt", asLines:"lines .jsonl", keys:"Keys", theme:"Light / dark", all:"all pairs", pairs:"pairs", pair:"pair", nearest:"the nearest", page:"page", of:"of", reveal:"unsafe — show", ships:"ships as", synthetic:"synthetic", score:"score", near:"cosine", close:"Close", like:"More like this", why:"on the terminal", source:"Source", decided:"decided here", threshold:"threshold", sameAs:"Stays in its place", placed:"Placed in", notShipped:"not shipped", noKey:"no pair's key starts so", noVectors:"This run kept no vectors, so meaning cannot be searched. Run with --set score.embeddings=true, or browse with --embed.", likeThis:"like", picture:"picture", read:"read", none:"Nothing fits this selection.",
    help:[["/","search"],["← → ↑ ↓","from pair to pair"],["Enter","the pair's story"],["[ ]","page back, on"],["n p","in a story: next, previous pair"],["s","show or blur an unsafe picture"],["m","more like this"],["l","English / 中文"],["d","light / dark"],["Esc","close"]] },
  zh: { meaning:"按语义", words:"按文字", key:"按键", search:"搜索", searchBy:"搜索方式", searchBox:"搜索内容", against:"比较对象", pictures:"图片", captions:"文字", drop:"拖入图片，或点击选择", split:"划分", any:"全部", order:"排序", asRead:"台账顺序", least:"不小于", most:"不大于", turn:"从大到小或从小到大", reasons:"原因", export:"导出所选：", asKeys:"键 .txt", asLines:"逐行 .jsonl", keys:"快捷键", theme:"明 / 暗", all:"全部图文", pairs:"对", pair:"对", nearest:"最相近的", page:"第", of:"/", reveal:"不安全 — 显示", ships:"输出为", synthetic:"合成描述", score:"分数", near:"余弦", close:"关闭", like:"查找相似", why:"在终端查看", source:"来源", decided:"在此判定", threshold:"阈值", sameAs:"保留的是", placed:"存放于", notShipped:"未输出", noKey:"没有以此开头的键", noVectors:"本次运行没有保存向量，无法按语义搜索。请以 --set score.embeddings=true 运行，或以 --embed 浏览。", likeThis:"相似于", picture:"图片", read:"读取", none:"没有符合条件的图文。",
    help:[["/","搜索"],["← → ↑ ↓","在图文间移动"],["Enter","查看详情"],["[ ]","上一页、下一页"],["n p","详情中：下一对、上一对"],["s","显示或遮挡不安全图片"],["m","查找相似"],["l","English / 中文"],["d","明 / 暗"],["Esc","关闭"]] } };
const FIELDS = ["status", "stage", "reason", "split", "holding", "order", "least", "most", "text", "upload", "like", "against"];
const COUNT = 48;
const $ = (id) => document.getElementById(id);
const stored = (name, otherwise) => { try { return localStorage.getItem(name) || otherwise; } catch { return otherwise; } };
const store = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a private window: not kept */ } };
let lang = stored("tuwen.lang", (navigator.language || "en").startsWith("zh") ? "zh" : "en");
let run = null, shown = { total: 0, pairs: [] }, state = {}, asked = 0, opened = null;
const uploads = new Map();
const t = (k) => T[lang][k] ?? k;
const num = (n) => n.toLocaleString(lang === "zh" ? "zh-CN" : "en-US");
const say = (r) => (run.words[r] || [r, r])[lang === "zh" ? 1 : 0];
const el = (tag, attrs = {}, ...kids) => { const n = document.createElement(tag); for (const [k, v] of Object.entries(attrs)) { if (v === false || v === undefined) continue; if (k === "class") n.className = v; else if (k.startsWith("on")) n.addEventListener(k.slice(2), v); else n.setAttribute(k, v); } n.append(...kids.filter((k) => k !== null && k !== undefined && k !== false)); return n; };

async function ask(path, options) {
  const answer = await fetch(path, options);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}
function fail(error) { $("error").textContent = error.message; $("error").hidden = false; }

// The selection stands in the address, so that back, forward and bookmarks work.
function chosen() { const q = new URLSearchParams(); for (const f of FIELDS) if (state[f]) q.set(f, state[f]); return q; }
function go(changes) {
  state = { ...state, from: 0, ...changes };
  const q = chosen(); if (state.from) q.set("from", state.from);
  const hash = "#" + q; if (location.hash === hash) load(); else location.hash = hash;
}
const near = { text: "", upload: "", like: "" };
function read() { state = Object.fromEntries(new URLSearchParams(location.hash.slice(1))); state.from = +state.from || 0; load(); }

async function load() {
  const mine = ++asked; controls(); $("pairs").classList.add("waiting");
  try {
    const q = chosen(); q.set("from", state.from); q.set("count", COUNT);
    const told = await ask("/api/pairs?" + q);
    if (mine !== asked) return;
    shown = told; $("error").hidden = true; pairs();
  } catch (error) { if (mine === asked) { shown = { total: 0, pairs: [] }; pairs(); fail(error); } }
  $("pairs").classList.remove("waiting");
}

function marked(text, spans) {
  const out = document.createDocumentFragment(), chars = Array.from(text); let at = 0;
  for (const [a, b, category, action] of spans || []) { if (a < at || a >= chars.length) continue; out.append(chars.slice(at, a).join(""), el("mark", { class: action, title: `${category}: ${action}` }, chars.slice(a, b).join(""))); at = b; }
  out.append(chars.slice(at).join("")); return out;
}
function view(p, size) {
  const box = el("div", { class: "view" });
  const img = el("img", { alt: p.raw || p.key, loading: "lazy", src: `/image?row=${p.row}&size=${size}` });
  box.append(img);
  if (p.unsafe) { box.classList.add("blurred"); box.append(el("button", { class: "reveal", onclick: (e) => { e.stopPropagation(); reveal(box); } }, t("reveal"))); }
  return box;
}
function reveal(box) { const button = box.querySelector(".reveal"); if (button) button.hidden = !box.classList.toggle("blurred") ; }
function card(p, i) {
  const facts = [p.value !== undefined ? `${near_()} ${p.value}` : "", p.score !== undefined ? `${t("score")} ${p.score}` : "", p.size || "", p.detail || "", p.key.slice(0, 12)].filter(Boolean);
  return el("div", { class: `pair ${p.status}`, role: "listitem", tabindex: 0, "data-row": p.row, "aria-label": `${say(p.reason || "kept")}: ${p.raw}`, onclick: () => open_(i), onkeydown: (e) => { if (e.key === "Enter" && e.target === e.currentTarget) open_(i); } },
    view(p, "small"), el("p", {}, marked(p.raw, p.spans)), p.caption !== undefined && el("p", { class: "soft" }, `${t("ships")}: ${p.caption}`),
    el("div", { class: "soft" }, (p.status === "kept" ? "" : say(p.reason) + " · ") + facts.join(" · ")));
}
function near_() { return state.text || state.upload || state.like ? t("near") : (state.order || "").replace("-", ""); }
function pairs() {
  $("total").textContent = (state.text || state.upload || state.like ? t("nearest") + " " : "") + `${num(shown.total)} ${t(shown.total === 1 ? "pair" : "pairs")}`;
  $("pairs").replaceChildren(...shown.pairs.map(card));
  if (!shown.pairs.length) $("pairs").append(el("p", { class: "soft" }, t("none")));
  const pages = Math.max(1, Math.ceil(shown.total / COUNT)), page = Math.floor(state.from / COUNT) + 1;
  $("place").textContent = `${t("page")} ${num(page)} ${t("of")} ${num(pages)}`;
  $("back").disabled = page <= 1; $("on").disabled = page >= pages;
  for (const form of ["txt", "jsonl"]) { const q = chosen(); q.set("format", form); $(form).href = "/export?" + q; }
}
function turnPage(by) { const from = state.from + by * COUNT; if (from >= 0 && from < shown.total) { go({ from }); scrollTo(0, 0); } }

function controls() {
  if (!run) return;
  const facets = $("facets"); facets.replaceChildren();
  const facet = (label, n, fields) => { const on = ["status", "stage", "reason"].every((f) => (state[f] || "") === (fields[f] || "")); facets.append(el("button", { "aria-pressed": String(on), "data-reason": fields.reason || fields.status || "all", onclick: () => go({ status: "", stage: "", reason: "", ...fields }) }, label, el("span", { class: "n" }, num(n)))); };
  facet(t("all"), run.counts.inputs, {});
  facet(say("kept"), run.counts.kept, { status: "kept" });
  for (const stage of run.stages) {
    const mine = run.facets.filter((f) => f.stage === stage); if (!mine.length) continue;
    facets.append(el("h3", {}, stage));
    for (const f of mine) facet(say(f.reason), f.pairs, { stage, reason: f.reason });
  }
  $("split").replaceChildren(el("option", { value: "" }, t("any")), ...run.splits.map((s) => el("option", { value: s }, s))); $("split").value = state.split || "";
  $("order").replaceChildren(el("option", { value: "" }, t("asRead")), ...run.measures.map((m) => el("option", { value: m.name, title: m.about }, m.unit ? `${m.name} (${m.unit})` : m.name)));
  const order = state.order || ""; $("order").value = order.replace("-", ""); $("turn").textContent = order.startsWith("-") ? "↓" : "↑";
  $("bounds").hidden = !order; $("least").value = state.least || ""; $("most").value = state.most || ""; $("against").value = state.against || "image";
  $("hint").textContent = run.meaning ? "" : t("noVectors");
  const chips = $("chips"); chips.replaceChildren();
  const chip = (label, clear, extra) => chips.append(el("button", { onclick: () => go(clear) }, extra, ` ${label} ✕`));
  if (state.text) chip(`“${state.text}”`, { text: "" });
  if (state.holding) chip(`${t("words")}: ${state.holding}`, { holding: "" });
  if (state.upload) chip(t("picture"), { upload: "" }, uploads.has(state.upload) ? el("img", { src: uploads.get(state.upload), alt: "" }) : "");
  if (state.like) chip(t("likeThis"), { like: "" }, el("img", { src: `/image?row=${encodeURIComponent(state.like)}&size=small`, alt: "" }));
  const mode = document.querySelector("[name=mode]:checked").value; if (document.activeElement !== $("query") && mode !== "key") $("query").value = state[mode] || "";
}

async function search(event) {
  event.preventDefault();
  const mode = document.querySelector("[name=mode]:checked").value, text = $("query").value.trim();
  try {
    if (mode === "text") go({ ...near, text, against: $("against").value === "caption" ? "caption" : "" });
    else if (mode === "holding") go({ holding: text });
    else if (text) { const rows = await ask("/api/find?key=" + encodeURIComponent(text)); if (!rows.length) throw new Error(t("noKey")); await story(rows[0]); }
  } catch (error) { fail(error); }
}
async function upload(file) {
  if (!file) return;
  try {
    const told = await ask("/api/image", { method: "POST", body: file });
    uploads.set(told.upload, URL.createObjectURL(file));
    go({ ...near, upload: told.upload });
  } catch (error) { fail(error); }
}

async function story(row) {
  let p; try { p = await ask("/api/pair?row=" + row); } catch (error) { fail(error); return; }
  opened = p;
  const table = (rows, kind = "") => el("table", {}, ...rows.map((m) => el("tr", { title: m.about, class: kind }, el("td", {}, m.name), el("td", {}, m.unit && m.unit !== "share" ? `${m.value} ${m.unit}` : m.value))));
  const verdict = p.status === "kept" ? say("kept") : `${p.stage}: ${p.words[lang === "zh" ? 1 : 0]} (${p.reason})`;
  const right = el("div", {}, el("h3", {}, t("source")), table(p.source));
  for (const s of p.stages) right.append(el("h3", {}, s.name, s.decided ? el("span", { class: "decided" }, ` ← ${t("decided")}: ${p.words[lang === "zh" ? 1 : 0]}`) : ""), table(s.measures), s.decided ? table(s.thresholds, "threshold") : "");
  $("story").replaceChildren(
    el("div", { class: "top" }, el("h2", { id: "storyTitle" }, verdict), el("span", { class: "right" }, el("button", { onclick: more }, t("like")), el("button", { onclick: () => $("story").close() }, t("close")))),
    el("div", { class: "soft" }, p.key, p.placed ? ` · ${t("placed")} ${p.placed}` : ` · ${t("notShipped")}`),
    el("div", { class: "two" }, el("div", {}, view(p, "large"), el("p", { class: "caption" }, marked(p.raw || "", p.spans)), p.caption && p.caption !== p.raw ? el("p", { class: "soft" }, `${t("ships")}: ${p.caption}`) : "", p.detail ? el("p", {}, p.detail) : "",
      p.original.length ? el("p", {}, el("button", { onclick: () => story(p.original[0]) }, p.unsafe ? "" : el("img", { alt: "", src: `/image?row=${p.original[0]}&size=small` }), `${t("sameAs")}: ${p.duplicate_of.slice(0, 12)}`)) : "", el("p", { class: "soft" }, t("why"), " ", el("code", {}, `curate why ${run.name} ${p.key.slice(0, 12)}`))), right));
  if (!$("story").open) $("story").showModal();
}
function more() { $("story").close(); go({ ...near, like: String(opened.row) }); }
let at = 0;
function open_(i) { at = i; if (shown.pairs[i]) story(shown.pairs[i].row); }
function step(by) { if (shown.pairs[at + by]) open_(at + by); }

function theme(name) { document.documentElement.dataset.theme = name; store("tuwen.theme", name); }
function draw() {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en"; store("tuwen.lang", lang);
  $("language").textContent = lang === "zh" ? "English" : "中文";
  for (const n of document.querySelectorAll("[data-t]")) n.textContent = t(n.dataset.t);
  for (const n of document.querySelectorAll("[data-label]")) n.setAttribute("aria-label", t(n.dataset.label));
  $("query").placeholder = lang === "zh" ? "湖边的红房子" : "湖边的红房子, a red house …";
  $("keysHelp").replaceChildren(el("table", {}, ...t("help").map(([k, what]) => el("tr", {}, el("td", {}, el("kbd", {}, k)), el("td", {}, what)))), el("p", {}, el("button", { onclick: () => $("keysHelp").close() }, t("close"))));
  if (!run) return;
  document.title = `${run.name} · tuwen`; $("title").textContent = run.name;
  $("about").textContent = `tuwen ${run.version} · ${run.recipe} · ${run.created.slice(0, 10)} · ${num(run.counts.inputs)} ${t("pairs")}` + (run.scorer ? ` · ${run.scorer}` : "");
  controls(); pairs();
}
function move(by) { const cards = [...document.querySelectorAll(".pair")], i = cards.indexOf(document.activeElement); const to = cards[i < 0 ? 0 : i + by]; if (to) to.focus(); }
function columns() { const cards = document.querySelectorAll(".pair"); let n = 1; while (n < cards.length && cards[n].offsetTop === cards[0].offsetTop) n++; return n; }
function keys(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
  const inStory = $("story").open;
  const does = { "/": () => { $("query").focus(); $("query").select(); }, l: () => $("language").click(), d: () => $("theme").click(), "?": () => $("keysHelp").showModal(), s: () => { const box = (inStory ? $("story") : document.activeElement).querySelector(".view"); if (box) reveal(box); },
    m: () => { if (inStory) more(); else if (document.activeElement.dataset.row) go({ ...near, like: document.activeElement.dataset.row }); },
    ...(inStory ? { n: () => step(1), p: () => step(-1) } : { "[": () => turnPage(-1), "]": () => turnPage(1), ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()) }) }[e.key];
  if (does) { e.preventDefault(); does(); }
}

async function start() {
  theme(stored("tuwen.theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  draw();
  $("search").addEventListener("submit", search);
  $("file").addEventListener("change", (e) => { upload(e.target.files[0]); e.target.value = ""; });
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, (e) => { e.preventDefault(); $("drop").classList.toggle("over", name === "dragover"); if (name === "drop") upload(e.dataTransfer.files[0]); });
  document.addEventListener("paste", (e) => { if (e.clipboardData.files.length) upload(e.clipboardData.files[0]); });
  for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", () => { $("againstLine").hidden = radio.value !== "text"; $("query").value = state[radio.value] || ""; });
  $("split").addEventListener("change", (e) => go({ split: e.target.value }));
  $("order").addEventListener("change", (e) => go({ order: e.target.value && "-" + e.target.value, least: "", most: "" }));
  $("turn").addEventListener("click", () => go({ order: state.order.startsWith("-") ? state.order.slice(1) : "-" + state.order }));
  for (const name of ["least", "most"]) $(name).addEventListener("change", (e) => go({ [name]: e.target.value.trim() }));
  $("back").addEventListener("click", () => turnPage(-1)); $("on").addEventListener("click", () => turnPage(1));
  $("language").addEventListener("click", () => { lang = lang === "zh" ? "en" : "zh"; draw(); });
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  $("help").addEventListener("click", () => $("keysHelp").showModal());
  $("story").addEventListener("close", () => $("story").replaceChildren());
  document.addEventListener("keydown", keys); addEventListener("hashchange", read);
  try { run = await ask("/api/run"); read(); draw(); } catch (error) { fail(error); }
}
start();
