// The plane of two latent units: sliders or a click choose a code, whose picture is shown.
(() => {
  "use strict";

  const takeOver = (root) => {
    const form = root.querySelector("form");
    const data = JSON.parse(root.querySelector("[type='application/json']").textContent);
    const { side, reach, step, levels, codes, labels, pictures } = data;
    const across = Math.round((2 * reach) / step) + 1;
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
    const [plane, picture] = panels;
    const signed = (z) => String(z).replace("-", "−");

    const nearest = (z) => {
      const far = codes.map(([a, b]) => (a - z[0]) ** 2 + (b - z[1]) ** 2);
      return labels[far.indexOf(Math.min(...far))];
    };

    const paint = (greys) => {
      const paths = Array.from({ length: levels + 1 }, () => "");
      [...greys].forEach((grey, k) => {
        const row = Math.floor(k / side), column = k % side;
        const [l, r] = [picture.x(column), picture.x(column + 1)];
        const [a, b] = [picture.y(row), picture.y(row + 1)];
        paths[grey] += `M${l} ${a}L${r} ${a}L${r} ${b}L${l} ${b}z`;
      });
      for (let grey = 1; grey <= levels; grey++) {
        picture.part(`grey${grey}`, "path").setAttribute("d", paths[grey] || "M0 0");
      }
    };

    const draw = () => {
      const z = ["z1", "z2"].map((name) => {
        const input = form.elements[name], shown = signed(input.value);
        input.previousElementSibling.textContent = shown;
        input.setAttribute("aria-valuetext", shown);
        return Number(input.value);
      });
      const dot = plane.part("dot", "use");
      dot.setAttribute("x", plane.x(z[0]));
      dot.setAttribute("y", plane.y(z[1]));
      const [column, row] = z.map((value) => Math.round((value + reach) / step));
      paint(pictures[row * across + column]);
      root.querySelector(".readout").textContent =
        `z = (${signed(z[0])}, ${signed(z[1])}): the nearest of these ${codes.length} codes is that of a ${nearest(z)}.`;
    };

    plane.svg.addEventListener("click", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
        plane.svg.getScreenCTM().inverse(),
      );
      plane.back(at.x, at.y).forEach((value, k) => {
        form.elements[`z${k + 1}`].value = step * Math.round(value / step); // the input clamps it
      });
      draw();
    });
    plane.svg.style.cursor = "crosshair";
    form.addEventListener("input", draw);
    form.addEventListener("reset", () => setTimeout(draw));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    draw();
  };

  for (const root of document.querySelectorAll("[data-explorer=latent]:not([data-live])")) {
    root.dataset.live = "";
    takeOver(root);
  }
})();
