"use strict";
// Candles, volume, the forecast's fan, past intervals and events, drawn on uPlot's canvas.
const box = document.querySelector("[data-chart]");
const data = JSON.parse(document.getElementById("chart-data").textContent);
const readout = document.querySelector("[data-readout]");
const n = data.day.length;
const ahead = data.fan ? Math.max(data.fan.horizon, 6) : 0; // one session alone could not be seen
const shows = { past: true, events: true, signals: true };
const eventsAt = new Map();
for (const [i, kind] of data.events) eventsAt.set(i, [...(eventsAt.get(i) ?? []), kind]);
const signalAt = new Map(data.signals);
const pastAt = new Map(data.past.map(([i, ...bounds]) => [i, bounds]));

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const dollars = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

function rolling(size, of) {
  return data.close.map((_, i) => (i + 1 < size ? null : of(data.close.slice(i + 1 - size, i + 1))));
}
const mean = (values) => values.reduce((a, b) => a + b) / values.length;
const deviation = (values) => Math.sqrt(mean(values.map((v) => (v - mean(values)) ** 2)));
const middle = rolling(20, mean);
const band = rolling(20, deviation);
const padded = (values) => [...values, ...Array(ahead).fill(null)];
const columns = [
  [...Array(n + ahead).keys()],
  padded(data.low),
  padded(data.high),
  padded(data.volume),
  padded(middle),
  padded(rolling(50, mean)),
  padded(middle.map((m, i) => (m === null ? null : m + 2 * band[i]))),
  padded(middle.map((m, i) => (m === null ? null : m - 2 * band[i]))),
];
if (ahead) {
  const [low, high] = data.fan.bands[1];
  columns[1][n - 1 + ahead] = low; // so that the axis holds the fan
  columns[2][n - 1 + ahead] = high;
}

function draw(u) {
  const { ctx } = u;
  const x = (i) => u.valToPos(i, "x", true);
  const y = (price) => u.valToPos(price, "y", true);
  const from = Math.max(Math.floor(u.scales.x.min), 0);
  const to = Math.min(Math.ceil(u.scales.x.max), n - 1);
  const step = x(1) - x(0);
  const wide = Math.max(Math.floor(step * 0.64), 1);
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  ctx.clip();
  if (shows.past) {
    ctx.fillStyle = color("fan1");
    for (let i = from; i <= to; i++) {
      const bounds = pastAt.get(i);
      if (bounds && bounds[0] !== null) ctx.fillRect(x(i) - step / 2, y(bounds[2]), step, y(bounds[0]) - y(bounds[2]));
    }
  }
  ctx.fillStyle = color("line");
  for (let i = from; i <= to; i++) {
    const top = u.valToPos(data.volume[i], "v", true);
    ctx.fillRect(Math.round(x(i) - wide / 2), top, wide, u.bbox.top + u.bbox.height - top);
  }
  const [up, down] = [color("up"), color("down")];
  const thin = Math.max(Math.round(devicePixelRatio), 1);
  for (let i = from; i <= to; i++) {
    ctx.fillStyle = data.close[i] >= data.open[i] ? up : down;
    const [a, b] = [y(Math.max(data.open[i], data.close[i])), y(Math.min(data.open[i], data.close[i]))];
    ctx.fillRect(Math.round(x(i) - thin / 2), y(data.high[i]), thin, y(data.low[i]) - y(data.high[i]));
    ctx.fillRect(Math.round(x(i) - wide / 2), a, wide, Math.max(b - a, thin));
  }
  if (ahead) fan(ctx, x, y);
  if (shows.signals) {
    const size = Math.min(Math.max(step * 0.3, 2 * devicePixelRatio), 5 * devicePixelRatio);
    for (let i = from; i <= to; i++) {
      if (!signalAt.has(i)) continue;
      const sign = signalAt.get(i) === "BUY" ? 1 : -1; // below the bar and pointing up, or the other way
      const tip = y(sign > 0 ? data.low[i] : data.high[i]) + sign * 4 * devicePixelRatio;
      ctx.fillStyle = sign > 0 ? up : down;
      ctx.beginPath();
      ctx.moveTo(x(i), tip);
      ctx.lineTo(x(i) - size, tip + sign * 1.6 * size);
      ctx.lineTo(x(i) + size, tip + sign * 1.6 * size);
      ctx.fill();
    }
  }
  if (shows.events) {
    ctx.fillStyle = color("mute");
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    const size = 4 * devicePixelRatio;
    let free = -1e9;
    for (let i = from; i <= to; i++) {
      if (!eventsAt.has(i)) continue;
      const top = y(data.high[i]) - 3 * size;
      ctx.beginPath();
      ctx.moveTo(x(i) - size, top);
      ctx.lineTo(x(i) + size, top);
      ctx.lineTo(x(i), top + 1.5 * size);
      ctx.fill();
      const label = eventsAt.get(i).join(", ");
      const half = ctx.measureText(label).width / 2 + size;
      if (x(i) - half < free || x(i) + half > u.bbox.left + u.bbox.width) continue;
      ctx.fillText(label, x(i), top - size);
      free = x(i) + half;
    }
  }
  ctx.restore();
}

function fan(ctx, x, y) {
  const [start, last] = [n - 1, data.close[n - 1]];
  // Uncertainty grows with the square root of time; at the horizon the bands are the forecast's.
  const edge = (bound, line) => {
    for (let k = 0; k <= 16; k++) {
      const part = k / 16;
      line(x(start + ahead * part), y(last + (data.fan.middle - last) * part + (bound - data.fan.middle) * Math.sqrt(part)));
    }
  };
  for (const [i, [low, high]] of data.fan.bands.entries()) {
    ctx.fillStyle = color(i ? "fan1" : "fan2");
    ctx.beginPath();
    ctx.moveTo(x(start), y(last));
    edge(high, (a, b) => ctx.lineTo(a, b));
    const lower = [];
    edge(low, (a, b) => lower.unshift([a, b]));
    for (const [a, b] of lower) ctx.lineTo(a, b);
    ctx.fill();
  }
  for (const [price, name, dashes] of [[last, "mute", [4, 4]], [data.fan.middle, "up", []]]) {
    ctx.strokeStyle = color(name);
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash(dashes);
    ctx.beginPath();
    ctx.moveTo(x(start), y(last));
    ctx.lineTo(x(start + ahead), y(price));
    ctx.stroke();
  }
  ctx.setLineDash([]);
}

function say(u) {
  const i = u.cursor.idx;
  if (i === null || i === undefined) return;
  if (i >= n) {
    const [low, high] = data.fan.bands[1];
    readout.textContent = `forecast for ${data.fan.session}: ${dollars(data.fan.middle)}, 90% ${dollars(low)} to ${dollars(high)}`;
    return;
  }
  const parts = ["open", "high", "low", "close"].map((name) => `${name} ${dollars(data[name][i])}`);
  let text = `${data.day[i]}: ${parts.join(", ")}, volume ${data.volume[i].toLocaleString("en-US")}`;
  const bounds = pastAt.get(i);
  if (bounds) text += `; forecast ${dollars(bounds[1])}` + (bounds[0] === null ? "" : `, 90% ${dollars(bounds[0])} to ${dollars(bounds[2])}`);
  if (signalAt.has(i)) text += `; ${signalAt.get(i)} at its close`;
  if (eventsAt.has(i)) text += `; ${eventsAt.get(i).join(", ")}`;
  for (const [name, pane] of panes) {
    const value = pane.data[1][i];
    text += `; ${name} ${value === null || value === undefined ? "–" : value.toLocaleString("en-US", { maximumSignificantDigits: 5 })}`;
  }
  readout.textContent = text;
}

const panes = new Map(); // name of an indicator to its chart
const hidden = { paths: () => null, points: { show: false } };
const line = (dash) => ({ show: false, stroke: () => color("mute"), width: 1.2, dash, points: { show: false } });
const axis = { stroke: () => color("mute"), grid: { stroke: () => color("line"), width: 0.6 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
const label = (i, span) => {
  const day = data.day[i];
  return day === undefined ? "" : span > 400 ? day.slice(0, 7) : day;
};
const chart = new uPlot(
  {
    width: box.clientWidth,
    height: box.clientWidth < 560 ? 320 : 420,
    scales: {
      x: { time: false, range: (u, min, max) => [min, max] },
      v: { range: (u, min, max) => [0, max * 5] },
    },
    axes: [
      { ...axis, space: 90, incrs: [1, 2, 5, 10, 21, 42, 63, 126, 252, 504], values: (u, at) => at.map((i) => label(i, u.scales.x.max - u.scales.x.min)) },
      { ...axis, side: 1, size: 60 },
    ],
    series: [{}, hidden, hidden, { ...hidden, scale: "v" }, line([]), line([6, 3]), line([2, 2]), line([2, 2])],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false }, sync: { key: "session" } },
    hooks: {
      draw: [draw],
      setCursor: [say],
      setScale: [(u, key) => key === "x" && panes.forEach((pane) => pane.setScale("x", u.scales.x))],
    },
  },
  columns,
  box,
);

const tools = document.querySelector("[data-tools]");
tools.hidden = false;
const ranges = [...tools.querySelectorAll("[data-range]")];
function range(button) {
  const sessions = Number(button.dataset.range);
  chart.setScale("x", { min: Math.max(n - sessions, 0) - 0.5, max: n - 1 + ahead + 0.5 });
  for (const other of ranges) other.setAttribute("aria-pressed", String(other === button));
}
for (const button of ranges) button.addEventListener("click", () => range(button));
for (const tick of tools.querySelectorAll("[data-show]")) {
  tick.addEventListener("change", () => {
    shows[tick.dataset.show] = tick.checked;
    chart.redraw();
  });
}
for (const tick of tools.querySelectorAll("[data-line]")) {
  tick.addEventListener("change", () => {
    for (const i of tick.dataset.line.split(",")) chart.setSeries(Number(i), { show: tick.checked });
  });
}
range(ranges[0]);
box.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const now = chart.cursor.idx ?? n - 1 - step;
  const i = Math.min(Math.max(now + step, 0), n - 1 + ahead);
  chart.setCursor({ left: chart.valToPos(i, "x"), top: 10 });
});
new ResizeObserver(() => {
  chart.setSize({ width: box.clientWidth, height: box.clientWidth < 560 ? 320 : 420 });
  for (const pane of panes.values()) pane.setSize({ width: box.clientWidth, height: PANE });
}).observe(box);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const drawn of [chart, ...panes.values()]) drawn.redraw();
});

// Indicators below the bars: fetched when they are chosen, and named in the address.
const PANE = 110;
const host = document.querySelector("[data-panes]");
const add = document.querySelector("[data-add]");

function remember() {
  const said = new URLSearchParams(location.search);
  said.delete("show");
  if (panes.size) said.set("show", [...panes.keys()].join(","));
  history.replaceState(null, "", `?${said}`.replaceAll("%2C", ","));
  add.disabled = panes.size >= Number(host.dataset.most);
}

async function show(names) {
  const query = new URLSearchParams(names.map((name) => ["name", name]));
  const address = host.dataset.from + (host.dataset.from.includes("?") ? "&" : "?") + query;
  const answer = await fetch(address);
  if (!answer.ok) {
    readout.textContent = "The indicator could not be fetched. Load the page anew.";
    return;
  }
  const found = await answer.json();
  const at = new Map(found.day.map((day, i) => [day, i]));
  for (const name of names) {
    if (panes.has(name)) continue;
    const values = data.day.map((day) => found[name][at.get(day)] ?? null);
    const figure = document.createElement("figure");
    const head = figure.appendChild(document.createElement("figcaption"));
    const close = document.createElement("button");
    head.append(name, close);
    close.textContent = "×";
    close.ariaLabel = `Without ${name}`;
    host.append(figure);
    const options = {
      width: box.clientWidth,
      height: PANE,
      scales: { x: { time: false, range: (u, min, max) => [min, max] } },
      axes: [{ ...axis, show: false }, { ...axis, side: 1, size: 60, space: 28 }],
      series: [{}, { stroke: () => color("acc"), width: 1.2, points: { show: false } }],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "session" } },
    };
    const pane = new uPlot(options, [columns[0], padded(values)], figure);
    const { min, max } = chart.scales.x;
    pane.setScale("x", { min, max });
    panes.set(name, pane);
    close.addEventListener("click", () => {
      pane.destroy();
      figure.remove();
      panes.delete(name);
      remember();
      add.focus();
    });
  }
  remember();
}

if (add) {
  const asked = new URLSearchParams(location.search).get("show");
  if (asked) show(asked.split(","));
  add.addEventListener("change", () => {
    if (add.value) show([add.value]);
    add.value = "";
  });
}
