// One LIF neuron: the sliders draw it again, from the closed forms of equations 33 to 35.

const WINDOW = 0.2; // seconds

const softplus = (x, gamma) =>
  Math.max(x, 0) + (gamma && gamma * Math.log1p(Math.exp(-Math.abs(x) / gamma)));
const toThreshold = (excess, n) => n.tau * Math.log1p(1 / excess); // Infinity for no excess
const rate = (excess, n) => (excess > 0 ? 1 / (n.ref + toThreshold(excess, n)) : 0);

const spikeTimes = (n) => {
  const times = [];
  if (n.j <= 1) return times;
  const first = toThreshold(n.j - 1, n);
  for (let k = 0; first + k * (first + n.ref) < WINDOW; k++) times.push(first + k * (first + n.ref));
  return times;
};

// Equation 33 from each reset to the next spike, as [milliseconds, voltage].
const trace = (n, times) => {
  const points = [];
  let start = 0;
  for (const end of [...times, WINDOW]) {
    points.push([1e3 * start, 0]);
    for (let k = 0; k <= 24 && start < end; k++) {
      const t = start + ((end - start) * k) / 24;
      points.push([1e3 * t, n.j * -Math.expm1((start - t) / n.tau)]);
    }
    if (end < WINDOW) points.push([1e3 * end, 0]);
    start = Math.min(end + n.ref, WINDOW);
  }
  return points;
};

const words = (n, times) => {
  const ms = (t) => `${(1e3 * t).toFixed(1)} ms`;
  const fires = times.length
    ? `a spike at ${ms(times[0])} and then every ${ms(times[0] + n.ref)}, ${times.length} in 200 ms`
    : `no spike, for the voltage tends to ${n.j} and never passes 1`;
  const hz = (excess) => `${rate(excess, n).toFixed(1)} Hz`;
  return `j = ${n.j}: ${fires}.\nRate ${hz(n.j - 1)}, smoothed ${hz(softplus(n.j - 1, n.gamma))}.`;
};

explore("lif", ([voltage, rates]) => {
  // Closest together at the threshold, where the rate is steepest.
  const currents = Array.from({ length: 201 }, (_, k) => 1 + (k < 100 ? 1 : 4) * (k / 100 - 1) ** 3);

  return (n) => {
    const times = spikeTimes(n);
    const smoothed = (j) => [j, rate(softplus(j - 1, n.gamma), n)];
    const hard = (j) => [j, rate(j - 1, n)];
    voltage.line("voltage", trace(n, times));
    voltage.line("spikes", ...times.map((t) => [[1e3 * t, 1], [1e3 * t, 1.3]]));
    rates.line("rate", currents.map(hard));
    rates.line("smoothed", currents.map(smoothed));
    rates.dot("dot", hard(n.j));
    rates.dot("smoothdot", smoothed(n.j));
    return words(n, times);
  };
});
