"use strict";
// Health: the figures of the newest state, and a line for each change, as the stream of page.js tells them.
const log = document.querySelector("[data-log]");
const said = document.querySelector("[data-stream]");
let first = true;
said.textContent = "Connecting.";

document.addEventListener("market", ({ detail: facts }) => {
  said.textContent = "Connected.";
  for (const slot of document.querySelectorAll("[data-fact]")) {
    const fact = facts[slot.dataset.fact];
    slot.textContent = slot.dataset.fact === "newest" ? fact.slice(0, 16).replace("T", " ") : fact.toLocaleString("en-US");
  }
  if (first) {
    first = false;
    return;
  }
  log.querySelector("[data-empty]")?.remove();
  const row = log.insertRow(0);
  const more = facts.n_changed - facts.changed.length;
  const which = facts.changed.join(", ") + (more > 0 ? ` and ${more} more` : "");
  for (const text of [facts.at.slice(11, 19), facts.state, facts.n_changed, which]) row.insertCell().textContent = text;
  row.cells[1].className = row.cells[2].className = "n";
  row.cells[3].className = "long";
  while (log.rows.length > 200) log.rows[200].remove();
});
