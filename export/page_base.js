// Small tools; text reaches the page through nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const state = {
  lang: (navigator.language || "en").startsWith("zh") ? "zh" : "en", reason: "kept", filter: "", reveal: false, moved: new Map(), change: "", shown: [],
};
if (data.pictures) {
  // The first axis is the score where there is one; beside the length of the caption is what people look at first.
  const many = data.pictures.axes.length, length = data.pictures.axes.findIndex((a) => a.columns.includes("chars"));
  const first = length > 0 ? length : 1, next = [...Array(many).keys()].find((i) => i > 0 && i !== first) ?? 1;
  state.shown = [[0, first], [0, next]];
}
function el(tag, attrs = {}, ...kids) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith("on")) node.addEventListener(k.slice(2), v);
    else node.setAttribute(k, v === true ? "" : v);
  }
  node.append(...kids.filter((k) => k !== null && k !== undefined));
  return node;
}
function svg(tag, attrs = {}, ...kids) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attrs)) node.setAttribute(k, v);
  node.append(...kids);
  return node;
}
const pick = (pair) => pair[state.lang === "zh" ? 1 : 0];
const num = (n) => (typeof n === "number" ? n.toLocaleString(state.lang === "zh" ? "zh-CN" : "en-US", { maximumFractionDigits: 4 }) : String(n));
function t(key, values = {}) {
  let said = TEXT[key] ? pick(TEXT[key]) : key;
  for (const [k, v] of Object.entries(values)) said = said.replace(`{${k}}`, num(v));
  return said;
}
const say = (reason) => (reason === "absent" ? t("absent") : data.words[reason] ? pick(data.words[reason]) : reason);
const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
function section(id, title, ...kids) {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, t(title)), ...kids);
}
const help = (key) => el("p", { class: "soft" }, t(key));
function announce(text) { document.getElementById("said").textContent = text; }
function copy(text) {
  const done = () => announce(`${t("copied")}: ${text}`);
  if (navigator.clipboard && window.isSecureContext) { navigator.clipboard.writeText(text).then(done, () => {}); return; }
  // A page opened from a file has no clipboard interface in some browsers.
  const area = el("textarea", { "aria-hidden": "true", class: "out-of-sight" });
  area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove(); done();
}
const copyButton = (text, about) => el("button", { type: "button", "aria-label": `${t("copy")} ${about || text}`, onclick: () => copy(text) }, t("copy"));
function tableOf(head, rows) {
  const cell = (tag, [value, kind]) => el(tag, { class: kind, scope: tag === "th" ? "col" : null }, value);
  return el("table", {}, el("thead", {}, el("tr", {}, ...head.map((c) => cell("th", c)))), el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map((c) => cell("td", c))))));
}
