// What explorers share whose sliders draw lines and dots: their panels, and their sliders' values.

const linesOf = (panel) => {
  const [left, right, bottom, top, x0, x1, y0, y1] = panel.dataset.box.split(" ").map(Number);
  panel.querySelector("svg").setAttribute("aria-label", panel.dataset.alt);
  const place = ([x, y]) => [
    (left + ((right - left) * (x - x0)) / (x1 - x0)).toFixed(2),
    (bottom + ((top - bottom) * (y - y0)) / (y1 - y0)).toFixed(2),
  ];
  const part = (name, tag) => panel.querySelector(`[id$="-${name}"] ${tag}`);
  return {
    line: (name, ...pieces) =>
      part(name, "path").setAttribute("d", pieces.map((p) => `M${p.map(place).join("L")}`).join("")),
    dot: (name, at) => place(at).forEach((c, k) => part(name, "use").setAttribute("xy"[k], c)),
  };
};

// Whoever draws is given the panels and the data, and then the sliders' values, in seconds where
// they are in milliseconds, whenever one moves; what it gives back is said in words.
const explore = (name, start) => {
  for (const root of document.querySelectorAll(`[data-explorer=${name}]:not([data-live])`)) {
    root.dataset.live = "";
    const form = root.querySelector("form"), data = root.querySelector("[type='application/json']");
    const panels = [...root.querySelectorAll("[data-box]")].map(linesOf);
    const words = start(panels, data && JSON.parse(data.textContent));
    const draw = () => {
      const n = {};
      for (const input of form.querySelectorAll("input")) {
        const shown = input.value + input.dataset.unit;
        input.previousElementSibling.textContent = shown;
        input.setAttribute("aria-valuetext", shown);
        n[input.name] = input.value / (input.dataset.unit === " ms" ? 1e3 : 1);
      }
      root.querySelector(".readout").textContent = words(n);
    };
    form.addEventListener("input", draw);
    form.addEventListener("reset", () => setTimeout(draw));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    draw();
  }
};
