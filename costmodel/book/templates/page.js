// Sorting by a column's header, the light and dark button, and what a phone and a printer need of foldable parts.
"use strict";

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  headers.forEach((header, column) => header.addEventListener("click", () => {
    const numeric = header.classList.contains("n");
    const turns = numeric ? ["descending", "ascending", null] : ["ascending", "descending", null];
    const turn = turns[(turns.indexOf(header.getAttribute("aria-sort") ?? null) + 1) % 3];
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    if (turn) header.setAttribute("aria-sort", turn);
    const sign = turn === "descending" ? -1 : 1;
    const compare = (a, b) => {
      const [left, right] = [key(a, column), key(b, column)];
      if (left === "" || right === "") return (left === "") - (right === "");  // rows without a value stay last
      return sign * (numeric ? Number(left) - Number(right) : left.localeCompare(right, "en", { numeric: true }));
    };
    body.append(...(turn ? [...original].sort(compare) : original));
  }));
}

const root = document.documentElement;
const button = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
const memory = {  // a page opened from a file may be refused its storage
  read() { try { return localStorage.getItem("costmodel-theme"); } catch { return null; } },
  write(theme) { try { localStorage.setItem("costmodel-theme", theme); } catch { /* not remembered */ } },
};
const remembered = memory.read();
if (remembered === "light" || remembered === "dark") root.dataset.theme = remembered;
button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; memory.write(root.dataset.theme); label(); });
prefersDark.addEventListener("change", label);
button.hidden = false;
label();

const contents = document.getElementById("contents");
if (matchMedia("(max-width: 62rem)").matches) contents.open = false;

const folded = [...document.querySelectorAll("details.table")];
const open = (hash) => {  // a link to something inside a folded table opens it
  const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (target) target.closest("details")?.setAttribute("open", "");
};
open(location.hash);
addEventListener("hashchange", () => open(location.hash));
let closed = [];
addEventListener("beforeprint", () => { closed = folded.filter((part) => !part.open); closed.forEach((part) => { part.open = true; }); });
addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
