// Fills the panel with what the model said of the character under the pointer. Data: see page.py, packed().
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const text = document.querySelector(".text"), panel = document.getElementById("panel");
const cells = [...text.querySelectorAll("i")];
const SHORT = 10; // sources listed before "all"
let at = -1, pinned = false, all = false;
cells.forEach((cell, i) => (cell.index = i));

const make = (tag, content = [], attributes = {}) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...[content].flat());
  return element;
};
const named = c => (c === " " ? "␣" : c === "\n" ? "↵" : c);
const few = (chars, most = 9) => [...chars].slice(0, most).map(named).join("") + ([...chars].length > most ? "…" : "");
const signed = (x, digits = 2) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const percent = p => (100 * p).toPrecision(p >= 0.1 ? 3 : 2).replace(/e.*/, "") + " %";
const chance = p => (p > 0.9995 ? "> 99.9 %" : p >= 1e-5 ? percent(p) : p.toExponential(1));
const count = n => (n >= 1e6 ? (n / 1e6).toPrecision(3) + " M" : n >= 1e4 ? (n / 1e3).toPrecision(3) + " k" : Number.isInteger(n) ? String(n) : n.toFixed(1));
const table = (heads, rows) => make("table", [
  make("thead", make("tr", heads.map(([label, className]) => make("th", label, { className })))), make("tbody", rows)]);
const cell = (content, className = "") => make("td", content, { className });
const bar = share => { const span = make("span"); span.style.width = `${100 * share}%`; return cell(span, "bar"); };

function sides(value, most) {
  const span = make("span", [], { className: value < 0 ? "against" : "" });
  const size = most ? 50 * Math.abs(value) / most : 0;
  span.style.left = `${value < 0 ? 50 - size : 50}%`;
  span.style.width = `${size}%`;
  return cell(span, "sides");
}

function topFive(c) {
  return table([["Most likely", ""], ["Probability", "n"], ["", ""]], c.top.map(([char, p]) => make("tr", [
    cell(named(char), char === c.char ? "key yes" : "key"), cell(chance(p), "n"), bar(p)])));
}

function context(c) {
  const order = n => (n < 0 ? "none" : n);
  const parts = [`Longest order with counts: ${order(c.orders[0])}; in this text: ${order(c.orders[1])}.`];
  parts.push(c.match ? `A match of ${c.match[0]} characters expects ${c.match[1] ? named(c.match[1]) : "a rare character"}.` : "No match with earlier text.");
  if (c.classes.length) parts.push("Classes: " + c.classes.map(([name, value]) => `${name} ${value}`).join(", ") + ".");
  return make("p", parts.join(" "), { className: "muted" });
}

function decisions(c) {
  const rows = c.decisions.map(([node, bit, p, mixer, last, even]) => {
    const [yes, no] = bit ? [data.nodes[node][1], data.nodes[node][0]] : data.nodes[node];
    return make("tr", [cell([make("span", few(yes), { className: "yes" }), ` not ${few(no)}`], "key"),
      cell(signed(mixer + even), "n"), cell(signed(last), "n"), cell(chance(p), "n"), cell((-Math.log2(p)).toFixed(2), "n")]);
  });
  return [make("h3", "Decisions in the code tree"), make("div", table([["It is one of", ""], ["Mixer", "n"], ["Last stage", "n"], ["P", "n"], ["Bits", "n"]], rows), { className: "scroll" })];
}

function sources(c) {
  const rows = [...c.sources].sort((a, b) => Math.abs(b[5]) - Math.abs(a[5]));
  const extra = [["last stage", c.last], ["shared evenly", c.even]].filter(([, value]) => value);
  const most = Math.max(...rows.map(r => Math.abs(r[5])), ...extra.map(([, value]) => Math.abs(value)), 1e-9);
  const list = all ? rows : rows.slice(0, SHORT), rest = rows.slice(list.length);
  const body = list.map(([k, seen, followed, evidence, weight, contribution]) => make("tr", [
    make("td", data.sources[k][0], { title: data.sources[k][1], className: "source" }), cell(seen ? `${count(followed)} of ${count(seen)}` : "", "n"),
    cell(signed(evidence), "n"), cell(signed(weight, 3), "n"), cell(signed(contribution), "n"), sides(contribution, most)]));
  const line = (label, value) => make("tr", [cell(label, "source"), cell(""), cell(""), cell(""), cell(signed(value), "n"), sides(value, most)]);
  const sum = numbers => numbers.reduce((a, b) => a + b, 0);
  if (rest.length) body.push(line(`${rest.length} others`, sum(rest.map(r => r[5]))));
  body.push(...extra.map(([label, value]) => line(label, value)));
  body.push(make("tr", [cell("sum = logits", "source yes"), cell(""), cell(""), cell(""), cell(signed(c.sum), "n yes"), cell("", "sides")]));
  const heads = [["Source", ""], ["Seen", "n"], ["Evidence", "n"], ["Weight", "n"], ["Contri\u00adbution", "n"], ["", "sides"]];
  const found = [make("h3", "What each source said"), make("div", table(heads, body), { className: "scroll" })];
  if (rows.length > SHORT) {
    const button = make("button", all ? "Show fewer" : `Show all ${rows.length}`, { type: "button" });
    button.onclick = () => { all = !all; fill(); };
    found.push(button);
  }
  return found;
}

function fill() {
  const c = unpack(data.chars[at]);
  const verdict = c.right ? "guessed" : c.guess ? `the guess was ${named(c.guess)}` : "no guess";
  const head = make("div", [make("b", named(c.char)), make("div", [
    make("p", [make("strong", `${c.bits.toFixed(3)} bits`), `, probability ${chance(c.p)}`]),
    make("p", [make("span", verdict, { className: c.right ? "good" : "bad" }), ` · ${c.kind} · character ${at + 1}`], { className: "muted" })])], { className: "head" });
  const close = make("button", "×", { type: "button", className: "close", ariaLabel: "Close" });
  close.onclick = hide;
  const parts = [close, head, topFive(c)];
  if (c.sources) {
    parts.push(context(c));
    if (c.rare) parts.push(make("p", `A rare character: which one it is costs ${c.rare.toFixed(2)} of the bits.`, { className: "muted" }));
    parts.push(...sources(c), ...decisions(c));
  }
  panel.replaceChildren(...parts);
  panel.classList.add("open");
}

function unpack([char, bits, p, right, guess, kind, top, more]) {
  const c = { char, bits, p, right: Boolean(right), guess, kind: data.kinds[kind], top };
  if (more) [c.rare, c.orders, c.match, c.classes, c.decisions, c.last, c.even, c.sum, c.sources] = more;
  return c;
}

function show(index) {
  if (index === at || index < 0 || index >= cells.length) return;
  if (at >= 0) cells[at].classList.remove("on");
  at = index;
  cells[at].classList.add("on");
  fill();
  const place = cells[at].getBoundingClientRect(), sheet = panel.getBoundingClientRect();
  const hidden = place.left < sheet.right && place.right > sheet.left && place.bottom > sheet.top;
  if (hidden) window.scrollBy(0, place.bottom - sheet.top + 40); // on a narrow screen the panel lies over the text
}

function hide() {
  if (at >= 0) cells[at].classList.remove("on");
  at = -1;
  pinned = false;
  panel.classList.remove("open");
  panel.replaceChildren(make("p", panel.dataset.hint, { className: "muted" }));
}

text.addEventListener("pointerover", event => {
  if (!pinned && event.pointerType === "mouse" && event.target.index !== undefined) show(event.target.index);
});
text.addEventListener("click", event => {
  if (event.target.index === undefined) return;
  pinned = !(pinned && event.target.index === at);
  show(event.target.index);
});
text.addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) {
    event.preventDefault();
    pinned = true;
    show(at < 0 ? 0 : at + step);
    cells[Math.max(at, 0)].scrollIntoView({ block: "nearest" });
  } else if (event.key === "Escape") hide();
});
