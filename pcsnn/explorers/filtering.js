// Poisson trains through an alpha filter: the sliders choose how many, how slow, and which rate.

const RATE = 100, WARM = 0.3, WINDOW = 0.5, TICKS = 36 ** 3; // Hz, seconds
const AT = Array.from({ length: 500 }, (_, k) => (k + 1) / 1000);
const TAUS = Array.from({ length: 81 }, (_, k) => 10 ** (-3 + k / 40));

const rateAt = (t, n) => RATE * (1 + Math.sin(2 * Math.PI * n.swings * t));

// Candidates of twice the rate stay with half the rate's share.
const spikes = (trains, n) =>
  trains.slice(0, n.many).flatMap((train) =>
    train.filter(([t, mark]) => mark < rateAt(t, n) / (2 * RATE)).map(([t]) => t));

const estimate = (times, n) =>
  AT.map((at) => {
    let sum = 0;
    for (const t of times) if (t < at) sum += ((at - t) / n.tau) * Math.exp((t - at) / n.tau);
    return sum / n.tau / n.many;
  });

// Noise and delay of the law, root mean squares.
const noise = (tau, n) => Math.sqrt(RATE / (4 * tau * n.many));
const delay = (tau, n) => {
  const w = 2 * Math.PI * n.swings * tau, d = (1 + w * w) ** 2;
  return (RATE * Math.hypot((1 - w * w) / d - 1, (2 * w) / d)) / Math.SQRT2;
};
const whole = (tau, n) => Math.hypot(noise(tau, n), delay(tau, n));

const words = (n, off) => {
  const hz = (value) => `${value.toFixed(1)} Hz`;
  const best = TAUS.reduce((a, b) => (whole(b, n) < whole(a, n) ? b : a));
  return `${n.many} train${n.many > 1 ? "s" : ""}, τ = ${Math.round(1e3 * n.tau)} ms: ` +
    `off by ${hz(off)} here (root mean square).\nBy the law ${hz(whole(n.tau, n))}: ` +
    `noise ${hz(noise(n.tau, n))}, delay ${hz(delay(n.tau, n))}; ` +
    `least at τ = ${(1e3 * best).toFixed(1)} ms.`;
};

explore("filtering", ([rates, errors], data) => {
  const trains = data.trains.map((digits) =>
    digits.match(/..../g).map((four) => [
      (parseInt(four.slice(0, 3), 36) / TICKS) * (WARM + WINDOW) - WARM,
      (parseInt(four[3], 36) + 0.5) / 36,
    ]));

  return (n) => {
    const found = estimate(spikes(trains, n), n);
    const off = Math.sqrt(
      found.reduce((sum, y, k) => sum + (y - rateAt(AT[k], n)) ** 2, 0) / AT.length);
    rates.line("estimate", AT.map((t, k) => [1e3 * t, found[k]]));
    rates.line("rate", AT.map((t) => [1e3 * t, rateAt(t, n)]));
    for (const [name, law] of Object.entries({ noise, delay, whole })) {
      errors.line(name, TAUS.map((tau) => [
        Math.log10(1e3 * tau), Math.log10(Math.max(law(tau, n), 1))]));
    }
    errors.dot("dot", [Math.log10(1e3 * n.tau), Math.log10(off)]);
    return words(n, off);
  };
});
