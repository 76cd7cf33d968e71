"use strict";
// The table of forecasts, sorted and filtered in place; the address says what is shown. Of a market that is
// larger than the table the service sorts and filters.
const table = document.querySelector("[data-table]");
if (table) {
  const form = document.querySelector(".filter");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const count = document.querySelector("[data-count]");
  const rows = [...body.rows];
  const named = (name) => heads.findIndex((head) => head.querySelector(`[data-sort=${name}]`));
  const signals = named("signal");

  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell.classList.contains("n")) return cell.dataset.v ?? cell.textContent;
    const figure = parseFloat(cell.textContent.replace("−", "-").replaceAll(",", ""));
    return Number.isNaN(figure) ? null : figure;
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);

  function sortBy(sort) {
    const down = sort.startsWith("-");
    const name = sort.replace("-", "");
    const column = named(name);
    if (column < 0) return;
    const keyed = rows.map((row) => [value(row, column), row.cells[0].textContent, row]);
    keyed.sort(([a, s], [b, t]) => {
      if (a === null || b === null) return (a === null) - (b === null) || compare(s, t);
      return (down ? -1 : 1) * compare(a, b) || compare(s, t);
    });
    body.append(...keyed.map(([, , row]) => row));
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    form.elements.sort.value = sort;
  }

  function filter() {
    const q = form.elements.q.value.trim().toUpperCase();
    const signal = form.elements.signal?.value ?? "";
    const marked = form.elements.marked.checked;
    let shown = 0;
    for (const row of rows) {
      const cells = row.cells;
      row.hidden = !(
        cells[0].textContent.toUpperCase().includes(q) &&
        (!signal || cells[signals].dataset.v === signal) &&
        (!marked || cells[cells.length - 1].textContent)
      );
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} shown`;
  }

  function remember() {
    const said = new URLSearchParams(new FormData(form));
    for (const [name, text] of [...said]) if (!text) said.delete(name);
    history.replaceState(null, "", `?${said}`);
  }

  if (table.dataset.table === "whole") {
    for (const head of heads) {
      head.querySelector("[data-sort]")?.addEventListener("click", (event) => {
        event.preventDefault();
        const name = event.currentTarget.dataset.sort;
        const at = head.getAttribute("aria-sort");
        const down = at ? at === "ascending" : name !== "symbol" && name !== "signal";
        sortBy((down ? "-" : "") + name);
        remember();
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      filter();
      remember();
    });
  } else {
    form.addEventListener("change", () => form.requestSubmit());
    form.addEventListener("formdata", ({ formData }) => {
      for (const [name, text] of [...formData]) if (!text) formData.delete(name);
    });
  }
  addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const isSearch = event.target.matches("input[type=search]");
    if (!step || !(isSearch || body.contains(event.target))) return;
    const links = [...body.querySelectorAll("tr:not([hidden]) th a")];
    const next = links[isSearch ? (step > 0 ? 0 : -1) : links.indexOf(event.target) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
}
