// Pictures of cells, computed beforehand: sliders, or a click on a plane, choose which is shown.
(() => {
  "use strict";

  const takeOver = (root, data) => {
    const form = root.querySelector("form");
    const panels = [...root.querySelectorAll("[data-box]")].map((panel) => {
      const [left, right, bottom, top, x0, x1, y0, y1] = panel.dataset.box.split(" ").map(Number);
      const svg = panel.querySelector("svg");
      svg.setAttribute("aria-label", panel.dataset.alt);
      return {
        svg,
        part: (name, tag) => panel.querySelector(`[id$="-${name}"] ${tag}`),
        x: (x) => (left + ((right - left) * (x - x0)) / (x1 - x0)).toFixed(2),
        y: (y) => (bottom + ((top - bottom) * (y - y0)) / (y1 - y0)).toFixed(2),
        back: (px, py) => [
          x0 + ((x1 - x0) * (px - left)) / (right - left),
          y0 + ((y1 - y0) * (py - bottom)) / (top - bottom),
        ],
      };
    });

    // One path for each level of a layer, of a square for each of its cells.
    const paint = (panel, { name, columns, levels }, cells) => {
      const paths = Array.from({ length: levels + 1 }, () => "");
      [...cells].forEach((level, k) => {
        const row = Math.floor(k / columns), column = k % columns;
        const [l, r] = [panel.x(column), panel.x(column + 1)];
        const [a, b] = [panel.y(row), panel.y(row + 1)];
        paths[level] += `M${l} ${a}L${r} ${a}L${r} ${b}L${l} ${b}z`;
      });
      for (let level = 1; level <= levels; level++) {
        panel.part(`${name}${level}`, "path").setAttribute("d", paths[level] || "M0 0");
      }
    };

    const draw = () => {
      let place = 0;
      const values = {};
      for (const { name, low, step, count, names } of data.sliders) {
        const input = form.elements[name];
        const shown = names ? names[input.value] : input.value.replace("-", "−");
        input.previousElementSibling.textContent = shown;
        input.setAttribute("aria-valuetext", shown);
        values[name] = Number(input.value);
        place = place * count + Math.round((input.value - low) / step);
      }
      const [told, ...cells] = data.frames[place];
      data.layers.forEach((layer, k) => paint(panels[layer.panel], layer, cells[k]));
      if (data.plane) {
        const dot = panels[0].part("dot", "use");
        dot.setAttribute("x", panels[0].x(values[data.plane[0]]));
        dot.setAttribute("y", panels[0].y(values[data.plane[1]]));
      }
      root.querySelector(".readout").textContent = told;
    };

    if (data.plane) {
      const { svg, back } = panels[0];
      svg.style.cursor = "crosshair";
      svg.addEventListener("click", (event) => {
        const inside = svg.getScreenCTM().inverse();
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(inside);
        back(at.x, at.y).forEach((value, k) => {
          const input = form.elements[data.plane[k]];
          input.value = input.step * Math.round(value / input.step); // the input clamps it
        });
        draw();
      });
    }
    form.addEventListener("input", draw);
    form.addEventListener("reset", () => setTimeout(draw));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    draw();
  };

  for (const root of document.querySelectorAll(".explorer[data-explorer=cells]:not([data-live])")) {
    root.dataset.live = "";
    takeOver(root, JSON.parse(root.querySelector("[type='application/json']").textContent));
  }
})();
