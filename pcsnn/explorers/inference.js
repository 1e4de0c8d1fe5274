// A predictive coding network during inference: equations 40 to 43, and what three rules do.
// In all lists of layers k = 0 is the input, or the weights and errors of layer 2.
(() => {
  "use strict";
  const ACTIVATIONS = { // σ and σ'
    identity: [(z) => z, () => 1],
    relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
    sigmoid: [(z) => 1 / (1 + Math.exp(-z)), (z) => 1 / (2 + Math.exp(z) + Math.exp(-z))],
    tanh: [Math.tanh, (z) => 1 - Math.tanh(z) ** 2],
  };
  const LIMIT = 1e6; // times the energy at t = 0: inference has diverged
  const ZERO = 1e-9; // a relative error below this is rounding
  const HIGH = "⁰¹²³⁴⁵⁶⁷⁸⁹";

  const sum = (a) => a.reduce((s, v) => s + v, 0);
  const dot = (a, b) => sum(a.map((v, i) => v * b[i]));
  const minus = (a, b) => a.map((v, i) => v - b[i]);
  const outer = (a, b) => a.map((v) => b.map((w) => v * w));
  const norm = (m) => Math.sqrt(sum(m.map((row) => dot(row, row))));
  const range = (n) => [...Array(n).keys()];
  const clip = (v) => Math.max(-1, Math.min(1, v));

  const episode = (data, { gamma, sigma, clamped }) => {
    const { weights, biases, noise } = data;
    const [f, slope] = ACTIVATIONS[data.activation];
    const K = weights.length;
    const squash = (x, k) => (k ? x.map(f) : x);
    const predict = (x, k) => weights[k].map((row, i) => dot(row, squash(x, k)) + biases[k][i]);
    const back = (e, x, k) => x.map((v, j) => slope(v) * sum(weights[k].map((row, i) => row[j] * e[i])));

    const forward = [data.x];
    for (let k = 0; k < K; k++) forward.push(predict(forward[k], k));
    const deltas = []; // backprop's errors, with the sign of ε
    deltas[K - 1] = minus(data.y, forward[K]);
    for (let k = K - 1; k > 0; k--) deltas[k - 1] = back(deltas[k], forward[k], k);
    const theirs = deltas.map((d, k) => outer(d, squash(forward[k], k)));

    const states = [];
    let x = forward.map((z, k) => (sigma && noise[k - 1] ? z.map((v, i) => v + sigma * noise[k - 1][i]) : z));
    if (clamped) x[K] = data.y;
    for (let t = 0; t <= data.steps; t++) {
      const u = x.slice(0, K).map(predict);
      const e = u.map((v, k) => minus(x[k + 1], v));
      const energies = e.map((v) => dot(v, v) / 2);
      const energy = sum(energies);
      if (t && !(energy <= LIMIT * states[0].energy)) break;
      const off = e.map((v, k) => outer(v, squash(x[k], k)).map((row, i) => minus(row, theirs[k][i])));
      const distances = off.map((m, k) => norm(m) / (norm(theirs[k]) || 1));
      states.push({ t, x, u, e, energies, energy, distances });
      x = x.map((v, k) => {
        if (k === 0 || (k === K && clamped)) return v;
        const pull = k < K ? back(e[k], v, k) : v.map(() => 0);
        return v.map((value, i) => value + gamma * (pull[i] - e[k - 1][i]));
      });
    }
    return { states, deltas };
  };

  // The matrices that a rule changes at step t.
  const changed = (data, rule, states, t) => {
    const all = range(data.weights.length);
    if (t >= states.length) return [];
    if (rule === "il") return t === data.steps ? all : [];
    if (rule === "zil") return all.filter((k) => t === all.length - 1 - k);
    const silent = (k, i) => range(data.window).every((s) => s >= t || states[t - 1 - s].e[k][i] === 0);
    return all.filter((k) => states[t].e[k].some((v, i) => v !== 0 && silent(k, i)));
  };

  // --- words -----------------------------------------------------------------------------------

  const nameOf = (k) => `W⁽${HIGH[k + 2]}⁾`;
  const list = (names) => [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" and ");
  const big = (v) => {
    const [mantissa, power] = v.toExponential(1).split("e+");
    return `${mantissa}·10${[...power].map((digit) => HIGH[digit]).join("")}`;
  };
  const energyOf = (v) => (v < 1e3 ? v.toFixed(3) : big(v));
  const distanceOf = (d) => (d <= ZERO ? "0" : d < 0.1 ? `${+d.toPrecision(2)}` : d < 100 ? d.toFixed(2) : big(d));
  const numberOf = (v) =>
    v === 0 ? "0" : v.toFixed(Math.abs(v) < 1e4 ? 4 : 0).replace(/^-(?=.*[1-9])/, "−").replace("-", "");

  const reach = ({ sigma }, { e, t }) => {
    if (sigma) return "the start is perturbed, so every layer has had an error since t = 0";
    const lowest = e.findIndex((errors) => errors.some((v) => v !== 0));
    if (lowest < 0) return "the prediction is the target, and there is no error";
    if (t === 0) return "the error is at the output alone";
    return t < e.length ? `the error has reached layer ${lowest + 2}` : "the error is in every layer";
  };

  const quality = ({ gamma, sigma }, { distances, t }, ks) => {
    const off = ks.map((k) => distances[k]);
    if (Math.max(...off) <= ZERO) return "by exactly backprop’s update";
    if (!sigma && ks.length === 1 && Math.abs(off[0] - Math.abs(1 - gamma ** t)) < ZERO) {
      const factor = `γ${t > 1 ? HIGH[t] : ""} = ${+(gamma ** t).toPrecision(3)}`;
      return `by ${factor} times backprop’s update`;
    }
    const ends = [...new Set([Math.min(...off), Math.max(...off)].map(distanceOf))];
    return `with a relative error of ${ends.join(" to ")} against backprop’s`;
  };

  const deed = (data, s, states, state, ks) => {
    const rule = data.rules[s.rule][0];
    if (ks.length) {
      const verb = ks.length > 1 ? "change" : "changes";
      return `${list(ks.map(nameOf).reverse())} ${verb} now under ${rule}, ${quality(s, state, ks)}`;
    }
    if (s.rule === "il") return `under IL all weights wait for t = ${data.steps}`;
    if (s.rule === "zil") return "under Z-IL every matrix has had its turn";
    const earlier = range(state.t).some((t) => changed(data, s.rule, states, t).length);
    return earlier ? "under Fa-Z-IL no error awakes any more" : "under Fa-Z-IL nothing changes";
  };

  const words = (data, s, states, t, ks) => {
    const state = states[Math.min(t, states.length - 1)];
    if (t > state.t) {
      const last = `The last step shown is t = ${state.t}, where the energy is ${energyOf(state.energy)}.`;
      return `t = ${t}: inference has diverged, for γ = ${s.gamma} is too large here. ${last}`;
    }
    if (!s.clamped && !s.sigma) {
      const rest = "the output is free and the network at rest, for its forward pass leaves no error";
      return `t = ${t}: ${rest}. Noise on the start shows how it comes back.`;
    }
    const rises = t > 0 && state.energy > states[t - 1].energy * (1 + ZERO);
    const warning = rises ? `, and rising: γ = ${s.gamma} is too large here` : "";
    const told = s.clamped
      ? `${reach(s, state)}; ${deed(data, s, states, state, ks)}`
      : "the output is free and follows its prediction; no weights change";
    return `t = ${t}: ${told}. Energy F = ${energyOf(state.energy)}${warning}.`;
  };

  // --- drawing ---------------------------------------------------------------------------------

  const around = (x, y, a, b, angles) => angles.map((w) => [x + a * Math.cos(w), y + b * Math.sin(w)]);
  const box = (x, y, a, b) => [[x - a, y - b], [x - a, y + b], [x + a, y + b], [x + a, y - b], [x - a, y - b]];
  const column = (t, low, high, half) => box(t, (low + high) / 2, half, (high - low) / 2);
  const filling = ({ node: [R] }, [x, y], level) => {
    const right = range(9).map((n) => (Math.asin(clip(level)) * n) / 8);
    return around(x, y, R, R, [...right, ...right.map((w) => Math.PI - w).reverse()]);
  };
  const triangle = ({ node: [, socket, gap] }, [x, y], error) => {
    const r = socket * Math.min(Math.sqrt(Math.abs(error)), 1.5) * Math.sign(error);
    return [[0, 0.75], [-0.866, -0.75], [0.866, -0.75]].map(([a, b]) => [x - gap + a * r, y + b * r]);
  };

  // A pair of axes: how its paths and words are changed.
  const canvas = (panel, text) => {
    const [left, right, bottom, top, x0, x1, y0, y1] = text.split(" ").map(Number);
    const [dx, dy] = [(right - left) / (x1 - x0), (top - bottom) / (y1 - y0)];
    const place = ([x, y]) => `${(left + dx * (x - x0)).toFixed(2)} ${(bottom + dy * (y - y0)).toFixed(2)}`;
    const part = (name, tag) => panel.querySelector(`[id$="-${name}"] ${tag}`);
    return {
      squeeze: Math.abs(dx / dy),
      path: (name, pieces) => {
        const path = part(name, "path");
        path.setAttribute("d", pieces.map((p) => `M${p.map(place).join("L")}`).join(""));
        return path.style;
      },
      text: (name, content) => {
        const text = part(name, "text");
        text.textContent = content;
        return text.style;
      },
    };
  };

  const drawNetwork = (axes, data, s, state, ks) => {
    const { places, scales, node: [R, socket, gap] } = data;
    const nodes = places.flat();
    const pairs = places.slice(1).flat();
    const levels = state.x.flat().map((v) => v / scales[0]);
    const ticks = state.u.flat().map((v) => R * clip(v / scales[0]));
    const errors = state.e.flat().map((v) => v / scales[1]);
    const those = (values, test, shape) => values.flatMap((v, n) => (test(v) ? [shape(v, n)] : []));
    for (const [name, test] of [["plus", (v) => v > 0], ["minus", (v) => v < 0]]) {
      axes.path(`value${name}`, those(levels, test, (v, n) => filling(data, nodes[n], v)));
      axes.path(`error${name}`, those(errors, test, (v, n) => triangle(data, pairs[n], v)));
    }
    axes.path("awake", those(errors, Boolean, (_, n) => box(pairs[n][0] - gap, pairs[n][1], socket, socket)));
    axes.path("ticks", pairs.map(([x, y], n) => [[x - R - 3, y + ticks[n]], [x + R + 3, y + ticks[n]]]));
    const lines = (k) =>
      places[k].flatMap(([x, y]) => places[k + 1].map(([v, w]) => [[x + R, y], [v - gap - socket, w]]));
    axes.path("lit", ks.flatMap(lines)).stroke = data.rules[s.rule][1];
    state.energies.forEach((energy, k) => {
      axes.text(`weight${k + 2}`, nameOf(k)).fontWeight = ks.includes(k) ? 700 : 400;
      axes.text(`energy${k + 2}`, `½|ε|² = ${energyOf(energy)}`);
    });
    axes.text(`end${state.e.length}`, s.clamped ? "target y" : "free");
  };

  const drawEnergies = (axes, { top }, states, now) => {
    const cut = (v) => Math.min(v / (states[0].energy || 1), top);
    states[0].e.forEach((_, k) => {
      const above = ({ energies }) => sum(energies.slice(k + 1));
      axes.path(`layer${k + 2}`, states.map((s) => column(s.t, cut(above(s)), cut(above(s) + s.energies[k]), 0.4)));
    });
    const over = states.filter(({ energy }) => energy / states[0].energy > top);
    axes.path("beyond", over.map(({ t }) => [[t - 0.4, top + 0.03], [t, top + 0.11], [t + 0.4, top + 0.03]]));
    axes.path("now", [column(now, 0, top, 0.5)]);
  };

  const drawTimetable = (axes, data, s, states, state, marks) => {
    const K = data.weights.length;
    const square = (t, k, half) => box(t, K - 1 - k, half, half * axes.squeeze);
    const disc = (t, k) => around(t, K - 1 - k, 0.44, 0.44 * axes.squeeze, range(17).map((n) => (n * Math.PI) / 8));
    const cells = s.clamped ? states.flatMap(({ t, distances }) => distances.map((d, k) => [t, k, d])) : [];
    const near = cells.filter(([, , d]) => d > ZERO && d < 1);
    axes.path("near", near.map(([t, k, d]) => square(t, k, 0.44 * Math.sqrt(1 - d))));
    axes.path("exact", cells.filter(([, , d]) => d <= ZERO).map(([t, k]) => disc(t, k)));
    const rings = marks.flatMap((ks, t) => ks.map((k) => square(t, k, 0.62)));
    axes.path("rings", rings).stroke = data.rules[s.rule][1];
    axes.path("here", [column(state.t, -0.5, K - 0.5, 0.5)]);
    state.distances.forEach((d, k) => axes.text(`distance${k + 2}`, s.clamped ? distanceOf(d) : "–"));
  };

  // --- the page --------------------------------------------------------------------------------

  const takeOver = (root) => {
    const data = JSON.parse(root.querySelector("[type='application/json']").textContent);
    const form = root.querySelector("form");
    const readout = root.querySelector(".readout");
    const cells = [...root.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
    const [network, energies, timetable] = [...root.querySelectorAll("[data-box]")].flatMap((panel) => {
      panel.querySelector("svg").setAttribute("aria-label", panel.dataset.alt);
      return panel.dataset.box.split(";").map((text) => canvas(panel, text));
    });
    const { t: time, gamma, sigma, output, rule, play, back, next } = form.elements;
    let playing = 0;

    const draw = () => {
      for (const input of form.querySelectorAll("[type=range]")) {
        input.previousElementSibling.textContent = input.value;
        input.setAttribute("aria-valuetext", input.value);
      }
      const s = {
        gamma: +gamma.value,
        sigma: +sigma.value,
        clamped: output.value === "clamped",
        rule: rule.value,
      };
      const t = +time.value;
      const { states, deltas } = episode(data, s);
      const state = states[Math.min(t, states.length - 1)];
      const marks = range(data.steps + 1).map((at) => (s.clamped ? changed(data, s.rule, states, at) : []));
      drawNetwork(network, data, s, state, marks[t]);
      drawEnergies(energies, data, states, state.t);
      drawTimetable(timetable, data, s, states, state, marks);
      root.style.setProperty("--rule", data.rules[s.rule][1]);
      const columns = [state.x.slice(1), state.u, state.e, s.clamped ? deltas : []].map((layers) => layers.flat());
      cells.forEach((row, n) =>
        row.forEach((cell, c) => (cell.textContent = n in columns[c] ? numberOf(columns[c][n]) : "–")),
      );
      readout.textContent = words(data, s, states, t, marks[t]).replaceAll(" = ", "\u00a0=\u00a0");
      back.disabled = t === 0;
      next.disabled = t === data.steps;
      root.episode = { states, marks }; // for whoever asks the console
    };
    const go = (t) => {
      time.value = t;
      draw();
    };
    const stop = () => {
      clearInterval(playing);
      playing = 0;
      play.textContent = "Play";
      readout.setAttribute("aria-live", "polite");
    };
    const step = (by) => () => {
      stop();
      go(+time.value + by);
    };
    const start = () => {
      readout.setAttribute("aria-live", "off"); // one sentence at the end, not twenty on the way
      play.textContent = "Pause";
      if (+time.value === data.steps) go(0);
      playing = setInterval(() => {
        if (+time.value + 1 >= data.steps) stop();
        go(+time.value + 1);
      }, 700);
    };

    play.addEventListener("click", () => (playing ? stop() : start()));
    back.addEventListener("click", step(-1));
    next.addEventListener("click", step(1));
    form.addEventListener("input", step(0));
    form.addEventListener("reset", () => setTimeout(step(0)));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    draw();
  };

  for (const root of document.querySelectorAll("[data-explorer=inference]:not([data-live])")) {
    root.dataset.live = "";
    takeOver(root);
  }
})();
