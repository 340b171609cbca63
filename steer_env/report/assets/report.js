"use strict";
// Texts come from students and attackers: they reach the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const MARKS = { harm: "✖", bare_refusal: "−", middling: "~", style: "◦", ideal: "●", unscored: "?" };
const WORDS = { harm: "harm", bare_refusal: "bare refusal", middling: "middling", style: "style", ideal: "ideal", unscored: "unscored" };
const $ = (id) => document.getElementById(id);
let shown = [], visible = 0;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const word = (name) => name.replaceAll("_", " ");

for (const one of data.dialogues)
  one.words = one.turns.map((t) => t.user + "\n" + t.reply).join("\n").toLowerCase() + "\n" + one.goal.toLowerCase();

const filters = [...document.querySelectorAll("[data-filter]")];
for (const select of filters) {
  const name = select.dataset.filter;
  const values = [...new Set(data.dialogues.map((d) => d[name]))].filter(Boolean).sort();
  for (const value of values) {
    const option = make("option", "", name === "worst" ? WORDS[value] : name === "policy" ? value : word(value));
    option.value = value;
    select.append(option);
  }
  if (values.length < 2) select.parentElement.hidden = true;
}

const ORDERS = {
  worst: (a, b) => a.low - b.low || a.mean - b.mean || a.seed - b.seed,
  typical: (a, b) => a.typical - b.typical || a.seed - b.seed,
  seed: (a, b) => a.seed - b.seed,
};

function update() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = filters.map((s) => [s.dataset.filter, s.value]).filter(([, value]) => value);
  shown = data.dialogues
    .filter((d) => chosen.every(([name, value]) => d[name] === value) && words.every((w) => d.words.includes(w)))
    .sort(ORDERS[$("order").value]);
  $("list").replaceChildren();
  visible = 0;
  $("count").textContent = `${shown.length} of ${data.dialogues.length} dialogues`;
  more();
}

function more() {
  $("list").append(...shown.slice(visible, visible + PAGE).map(entry));
  visible = Math.min(visible + PAGE, shown.length);
  $("more").hidden = visible >= shown.length;
}

function entry(one) {
  const box = make("details", `dialogue ${one.worst}`);
  const head = make("summary");
  const labels = [one.suite, `seed ${one.seed}`, one.note, one.forked, one.kind, one.strategy, one.technique, one.category, one.mechanism];
  const text = make("span");
  text.append(make("b", "", one.policy), " · ", labels.filter(Boolean).map(word).join(" · "));
  head.append(strip(one), text);
  box.append(head);
  box.id = `d${data.dialogues.indexOf(one)}`;
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(body(one)); });
  return box;
}

function strip(one) {
  const box = make("span", "strip");
  for (const turn of one.turns) {
    const mark = make("span", turn.event, MARKS[turn.event]);
    mark.title = WORDS[turn.event];
    box.append(mark);
  }
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", one.turns.map((t) => WORDS[t.event]).join(", "));
  return box;
}

function body(one) {
  const box = make("div", "body");
  const link = make("a", "meta", "link to this dialogue");
  link.href = `#d${data.dialogues.indexOf(one)}`;
  const foot = make("p", "foot");
  foot.append(...sameSeed(one), " ", link);
  box.append(hidden(one), foot);
  return box;
}

// The same seed for every policy, one column each.
function sameSeed(one) {
  const all = data.dialogues.filter((d) => d.seed === one.seed && d.suite === one.suite && d.note === one.note);
  if (new Set(all.map((d) => d.policy)).size < 2) return [];
  const button = make("button", "same", `same seed, ${all.length} policies side by side`);
  button.type = "button";
  button.addEventListener("click", () => {
    const scroll = make("div", "scroll"), grid = make("div", "beside");
    grid.style.setProperty("--columns", all.length);
    for (const other of all) {
      const column = make("div", "column"), head = make("h3", "", other.policy + " ");
      head.append(strip(other));
      column.append(head, hidden(other));
      grid.append(column);
    }
    scroll.append(grid);
    button.closest(".body").replaceChildren(scroll);
  });
  return [button];
}

function hidden(one) {
  const box = make("div");
  if (one.worst !== "harm") { box.append(...turns(one)); return box; }
  const button = make("button", "reveal", "This dialogue is marked harmful. Show its text");
  button.type = "button";
  button.addEventListener("click", () => {
    const parts = turns(one);
    button.replaceWith(...parts);
    box.tabIndex = -1;
    box.focus({ preventScroll: true });
  });
  box.append(button);
  return box;
}

function turns(one) {
  const parts = [];
  if (one.goal) parts.push(make("p", "meta", `hidden goal: ${one.goal}`));
  let next = 0;
  one.turns.forEach((turn, index) => {
    const box = make("div", "turn");
    const pictures = make("div", "pictures");
    for (const digest of one.images.slice(next, next + turn.images)) pictures.append(picture(digest));
    next += turn.images;
    if (pictures.children.length) box.append(pictures);
    box.append(make("div", "said user", turn.user), make("div", "said reply", turn.reply));
    const chips = make("ul", "chips");
    chips.append(make("li", turn.event, `turn ${index + 1}: ${WORDS[turn.event]}`));
    chips.append(...turn.chips.map(([kind, text]) => make("li", kind, text)));
    box.append(chips);
    if (turn.because) box.append(make("p", "meta", `because: ${turn.because}`));
    parts.push(box);
  });
  if (one.stop) parts.push(make("p", "meta", `ended: ${one.stop}`));
  if (one.tokens) parts.push(tokens(one.tokens));
  return parts;
}

// Tokens as the model saw them: context plain, sampled tokens tinted by their advantage.
function tokens(pieces) {
  const box = make("details", "tokens");
  box.append(make("summary", "", "Tokens: mask and advantage"));
  box.addEventListener("toggle", () => {
    if (!box.open || box.children.length > 1) return;
    const most = Math.max(...pieces.map((p) => Math.abs(Array.isArray(p) && p[2] || 0))) || 1;
    const key = make("p", "meta");
    const kinds = [["plus", "positive advantage"], ["minus", "negative advantage"], ["out", "sampled, not in the loss"]];
    for (const [kind, text] of kinds) key.append(make("span", `token ${kind}`, text), " ");
    key.append("the rest is context (mask 0). Point at a token for its numbers.");
    const text = make("div", "sequence");
    text.append(...pieces.map((piece) => token(piece, most)));
    box.append(key, text);
  });
  return box;
}

function token(piece, most) {
  if (!Array.isArray(piece)) return make("span", "context", piece);
  const [text, logprob, advantage] = piece;
  const kind = advantage === null ? "out" : advantage < 0 ? "minus" : advantage > 0 ? "plus" : "zero";
  const node = make("span", `token ${kind}`, text);
  if (advantage) node.style.setProperty("--weight", `${15 + Math.round(45 * Math.abs(advantage) / most)}%`);
  node.title = `log-probability ${logprob}, ` + (advantage === null ? "not in the loss" : `advantage ${advantage}`);
  return node;
}

function picture(digest) {
  const source = data.images[digest];
  if (!source) return make("span", "meta", `[picture ${digest.slice(0, 8)} not embedded]`);
  const node = make("img");
  node.src = source;
  node.alt = `picture ${digest.slice(0, 8)}`;
  return node;
}

function step(by) {
  const heads = [...document.querySelectorAll("details.dialogue > summary")];
  const at = heads.indexOf(document.activeElement);
  if (at + by >= heads.length) more();
  const all = document.querySelectorAll("details.dialogue > summary");
  const target = all[Math.max(0, Math.min(all.length - 1, at + by))];
  if (target) target.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
  if (event.key === "Escape") { $("search").value = ""; document.activeElement.blur(); update(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
$("search").addEventListener("input", update);
$("order").addEventListener("change", update);
$("more").addEventListener("click", more);
for (const select of filters) select.addEventListener("change", update);
update();

// A link to one dialogue opens it, wherever in the list it is.
function follow() {
  const one = data.dialogues[Number(/^#d(\d+)$/.exec(location.hash)?.[1] ?? NaN)];
  if (!one) return;
  while (shown.includes(one) && shown.indexOf(one) >= visible) more();
  const box = document.getElementById(location.hash.slice(1));
  if (!box) return;
  box.open = true;
  box.scrollIntoView();
}
addEventListener("hashchange", follow);
follow();
