"use strict";
// Tables sort by a click (or Enter) on a heading and, where they are long, show the rows that hold what is typed.
// Pictures open in full size by a click (or Enter) and close by a click or Escape.
const LONG = 6;

function number(text) {
  const found = text.replace(/,/g, "").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : NaN;
}

function compare(a, b) {
  const [x, y] = [number(a), number(b)];
  if (Number.isNaN(x) || Number.isNaN(y)) return a.localeCompare(b, undefined, { numeric: true });
  return x - y;
}

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((p, q) => compare(p.cells[column].textContent, q.cells[column].textContent));
  body.append(...(down ? rows.reverse() : rows));
}

function pressed(element, act) {
  element.tabIndex = 0;
  element.addEventListener("click", act);
  element.addEventListener("keydown", (event) => { if (event.key === "Enter") act(); });
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.title = "sort by this column";
    pressed(heading, () => sort(table, column, heading));
  });
  if (table.tBodies[0].rows.length <= LONG) continue;
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "show rows that hold …";
  field.setAttribute("aria-label", "show rows that hold this text");
  field.addEventListener("input", () => {
    const sought = field.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(sought);
  });
  table.parentElement.before(field);
}

const large = document.createElement("dialog");
large.setAttribute("aria-label", "picture in full size");
document.body.append(large);
large.addEventListener("click", () => large.close());
for (const image of document.querySelectorAll("figure img")) {
  image.title = "click: full size";
  pressed(image, () => {
    const copy = document.createElement("img");
    copy.src = image.src;
    copy.alt = image.alt;
    large.replaceChildren(copy);
    large.showModal();
  });
}
