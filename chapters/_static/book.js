// The book's own script: the ledger's filter, previews of links, and reach for the keyboard.
// Nothing depends on it.
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
    // An item is found by its number as well: "eq. 25", "table 3".
    const spelled = { eq: "equation", fig: "figure", tab: "table", thm: "theorem", alg: "algorithm" };
    const number = ({ id }) =>
      id.replace(/^\w+-([a-z]+)([\d.]+\w?)$/, (_, kind, n) => `${kind}. ${n} ${spelled[kind] || kind} ${n}`);
    const texts = rows.map((row) => `${row.textContent} ${number(row)}`.toLowerCase());
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

  // What a link leads to, while the pointer rests on it; each page's places are in one file.
  const preview = () => {
    const known = (window.bookPreviews = {});
    const asked = {};
    const pageOf = (url) => url.pathname.split("/").pop().replace(/\.html$/, "") || "index";
    const box = document.createElement("div");
    box.className = "preview bd-article";
    box.setAttribute("aria-hidden", "true"); // the link itself is there for a screen reader
    box.hidden = true;
    document.body.append(box);
    let timer;

    const ask = (page) =>
      (asked[page] ??= new Promise((done) => {
        const script = document.createElement("script");
        script.src = `_static/previews/${page}.js`;
        script.onload = script.onerror = done;
        document.head.append(script);
      }));

    const show = async (link) => {
      const url = new URL(link.href);
      await ask(pageOf(url));
      const text = known[pageOf(url)]?.[decodeURIComponent(url.hash.slice(1))];
      if (!text || !link.matches(":hover")) return;
      box.innerHTML = text;
      box.hidden = false;
      const at = link.getBoundingClientRect();
      const below = at.bottom + box.offsetHeight + 16 < innerHeight;
      box.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - box.offsetHeight - 8)}px`;
      box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 16))}px`;
    };

    const hide = () => {
      clearTimeout(timer);
      box.hidden = true;
    };
    for (const link of document.querySelectorAll(".bd-article a[href*='#']:not(.headerlink, .id)")) {
      if (new URL(link.href).host !== location.host) continue;
      link.addEventListener("mouseenter", () => (timer = setTimeout(show, 250, link)));
      link.addEventListener("mouseleave", hide);
    }
    addEventListener("scroll", () => (box.hidden = true), { passive: true });
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
  };

  addEventListener("DOMContentLoaded", () => {
    const form = document.querySelector("form.ledger-filter");
    if (form) filterLedger(form);
    reach();
    if (matchMedia("(hover: hover)").matches) preview();
  });
  addEventListener("load", reach);
  addEventListener("resize", reach);
})();
