// Puts the page together; language, theme and keys.
const PARTS = data.kind === "run" ? [summary, funnel, thresholds, measures, worth, gallery, twins, composition, theRun] : [twoRuns, twoFunnels, twoVerdicts];
function draw(focus) {
  const zh = state.lang === "zh", root = document.documentElement;
  root.lang = zh ? "zh-CN" : "en";
  const title = data.kind === "run" ? `tuwen · ${data.recipe.name}` : `tuwen · ${data.runs[0].name} → ${data.runs[1].name}`;
  document.title = document.getElementById("title").textContent = title;
  document.getElementById("about").textContent = data.kind === "run" ? `${data.run.created} · tuwen ${data.run.version} · ${data.run.runner}` : "";
  const language = document.getElementById("language");
  language.textContent = zh ? "English" : "中文"; language.lang = zh ? "en" : "zh-CN";
  for (const n of document.querySelectorAll("[data-t]")) n.textContent = t(n.dataset.t);
  const open = document.getElementById("quiet")?.open, made = PARTS.map((part) => part()).filter(Boolean);
  document.getElementById("main").replaceChildren(...made);
  if (open) document.getElementById("quiet").open = true;
  const contents = document.getElementById("contents");
  contents.setAttribute("aria-label", t("summary"));
  contents.replaceChildren(...made.map((s) => el("a", { href: `#${s.id}` }, s.querySelector("h2").textContent)));
  if (data.kind === "run") changeBar();
  if (focus) document.querySelector(focus)?.focus({ preventScroll: true });
}
const ROOT = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
ROOT.dataset.theme = dark.matches ? "dark" : "light";
dark.addEventListener("change", (e) => { ROOT.dataset.theme = e.matches ? "dark" : "light"; });
const flipTheme = () => { ROOT.dataset.theme = ROOT.dataset.theme === "dark" ? "light" : "dark"; };
const flipLanguage = () => { state.lang = state.lang === "zh" ? "en" : "zh"; draw(); };
const flipHidden = () => { state.reveal = !state.reveal; if (data.kind === "run") { drawPairs(); drawTwins(); } else redraw("pairs", twoVerdicts()); };
function nextReason(step) {
  const of = data.kind === "run" ? Object.keys(data.gallery) : data.changes.map(([a, b]) => `${a}>${b}`), held = data.kind === "run" ? "reason" : "change";
  const next = of[of.indexOf(state[held]) + step];
  if (!next) return;
  state[held] = next;
  if (held === "reason") drawPairs(`[data-reason="${CSS.escape(next)}"]`); else redraw("pairs", twoVerdicts(), `[data-change="${CSS.escape(next)}"]`);
}
function showKeys() {
  const box = document.getElementById("keys"), rows = [["← →  j k", "nextReason"], ["/", "toFilter"], ["b", "toHidden"], ["t", "toTheme"], ["l", "toLanguage"], ["?", "keys"]];
  box.replaceChildren(el("h2", { id: "keys-title", style: "margin-top:0" }, t("keys")), el("dl", {}, ...rows.flatMap(([k, w]) => [el("dt", {}, el("kbd", {}, k)), el("dd", {}, t(w))])), el("button", { type: "button", onclick: () => box.close() }, t("close")));
  if (!box.open) box.showModal();
}
const KEYS = { ArrowRight: () => nextReason(1), ArrowLeft: () => nextReason(-1), j: () => nextReason(1), k: () => nextReason(-1), "/": () => document.getElementById("filter")?.focus(), b: flipHidden, t: flipTheme, l: flipLanguage, "?": showKeys };
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) || document.getElementById("keys").open) return;
  const act = KEYS[e.key];
  if (act) { e.preventDefault(); act(); }
});
document.getElementById("language").addEventListener("click", flipLanguage);
document.getElementById("theme").addEventListener("click", flipTheme);
document.getElementById("help").addEventListener("click", showKeys);
draw();
