"use strict";
// Every page: keys for the session before and after, and word of a newer state of the market.
document.documentElement.classList.add("js");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const link = { "[": "a[rel=prev]", "]": "a[rel=next]" }[event.key];
  if (link) document.querySelector(link)?.click();
  const search = event.key === "/" && document.querySelector("input[type=search]");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

const live = document.querySelector("[data-live]");
if (live) {
  const stream = new EventSource(live.dataset.live);
  stream.addEventListener("state", (event) => {
    const facts = JSON.parse(event.data);
    document.dispatchEvent(new CustomEvent("market", { detail: facts }));
    if (live.dataset.state && String(facts.state) !== live.dataset.state) {
      live.innerHTML = '<a href="">The market has changed since this page was made: show it</a>';
      live.firstChild.href = location.href;
      live.hidden = false;
    }
  });
  addEventListener("pagehide", () => stream.close());
}
