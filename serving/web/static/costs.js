// The costs' slider: every multiple is on the page already, and the address keeps the one that is shown.
"use strict";
const slider = document.getElementById("costs");
if (slider) {
  const show = () => {
    const at = String(Number(slider.value));
    for (const part of document.querySelectorAll("[data-costs]")) part.hidden = part.dataset.costs !== at;
    document.querySelector("[data-shown]").value = at;
  };
  slider.addEventListener("input", show);
  slider.addEventListener("change", () => {
    const address = new URL(location.href);
    address.searchParams.set("costs", slider.value);
    history.replaceState(null, "", address);
  });
  document.getElementById("portfolio").addEventListener("change", () => slider.form.requestSubmit());
  show(); // a browser that comes back to the page has kept the slider where it was
}
