// A csv from the person's disk into the field: it is read here, and goes nowhere but into the address.
"use strict";
const file = document.getElementById("csv");
const field = document.getElementById("holdings");
if (file && field) {
  file.closest("[hidden]").hidden = false;
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    field.value = (await file.files[0].text()).slice(0, field.maxLength);
    file.value = ""; // or the browser would send its name along
    field.focus();
  });
}
