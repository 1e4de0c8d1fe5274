// The book's own script: the ledger's filter, and reach for the keyboard. Nothing depends on it.
(() => {
  "use strict";

  const SCROLLS =
    ".formula, .statement, .printed, .correction, .pst-scrollable-table-container, div.figure, pre";

  // What scrolls sideways can be reached with the keyboard; what does not is no stop on the way.
  const reach = () => {
    for (const box of document.querySelectorAll(SCROLLS)) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", box.matches("pre") ? "Code" : "Wide content");
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  };

  const filterLedger = (form) => {
    const rows = [...document.querySelectorAll("table.ledger tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const status = form.querySelector("[role=status]");
    const fields = ["source", "verdict", "chapter"].map((name) => form.elements[name]);
    const search = form.elements.text;

    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        const fits = fields.every((field) => !field.value || row.dataset[field.name] === field.value);
        row.hidden = !(fits && words.every((word) => texts[i].includes(word)));
        shown += row.hidden ? 0 : 1;
      });
      status.textContent = shown === rows.length ? `${shown} entries` : `${shown} of ${rows.length} entries`;
    };

    const asked = new URLSearchParams(location.search);
    for (const field of [...fields, search]) field.value = asked.get(field.name) || "";
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
    // A link to a row that the filter hides shows it.
    addEventListener("hashchange", () => {
      const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (row && row.hidden) {
        form.reset();
        setTimeout(() => row.scrollIntoView());
      }
    });
    form.hidden = false;
    apply();
  };

  addEventListener("DOMContentLoaded", () => {
    const form = document.querySelector("form.ledger-filter");
    if (form) filterLedger(form);
    reach();
  });
  addEventListener("load", reach);
  addEventListener("resize", reach);
})();
