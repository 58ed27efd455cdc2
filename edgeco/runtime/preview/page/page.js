// The page: one WebSocket brings facts, points of the chart, and a picture whenever the last one has been drawn.

import { Chart } from "./chart.js";

const element = (id) => document.getElementById(id);
const chart = new Chart(element("chart"));
const view = element("view");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
let socket = null, retry = 500, owed = false, facts = {}, fresh = 0;

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.binaryType = "blob";
  socket.onopen = () => { retry = 500; owed = false; chart.clear(); ask(); };
  socket.onmessage = (event) => (typeof event.data === "string" ? hear(JSON.parse(event.data)) : show(event.data));
  socket.onclose = () => {
    const over = facts.state === "ended" || facts.state === "failed";
    if (!over) say("lost", "no connection, trying again");
    setTimeout(connect, retry);
    retry = Math.min(retry * 2, over ? 10000 : 4000);
  };
}

// Pictures are asked for one by one, so that a slow line shows fewer and never older ones; a hidden page asks for none.
function ask() {
  if (document.hidden || owed || socket.readyState !== WebSocket.OPEN) return;
  owed = true;
  socket.send("picture");
}

async function show(blob) {
  try {
    const picture = await createImageBitmap(blob);
    if (view.width !== picture.width || view.height !== picture.height) {
      view.width = picture.width;
      view.height = picture.height;
    }
    view.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    document.body.dataset.pictures = Number(document.body.dataset.pictures) + 1;
  } finally {
    owed = false;
    ask();
  }
}

function hear(message) {
  if (message.type === "points") {
    chart.add(message.points, message.labels, message.now);
    document.body.dataset.points = chart.points.length;
    if (message.points.length) fresh = performance.now();
    return;
  }
  facts = message;
  say(message.state, message.words);
  document.title = message.title;
  element("title").textContent = message.title;
  element("detail").textContent = message.detail ?? "";
  source(message);
  answer(message);
  tiles(message);
  tables(message);
}

function say(state, words) {
  document.body.dataset.state = state;
  const spoken = element("state").querySelector("b");
  if (spoken.textContent !== words) spoken.textContent = words;
  const veils = { reconnecting: "reconnecting …", stalled: "no frames from the source", lost: "no connection to the run",
    opening: "opening the source …", failed: "the run has failed", ended: "the run has ended" };
  element("veil").textContent = veils[state] ?? facts.no_picture ?? "";
}

function source({ source: from }) {
  const size = from?.size ? ` · ${from.size[0]}×${from.size[1]}` : "";
  const rate = from?.fps ? ` · ${from.fps.toFixed(1)} fps` : "";
  const again = from?.reconnects ? ` · reconnected ${from.reconnects}×` : "";
  element("source").textContent = from ? `${from.uri}${size}${rate}${again}` : "";
}

function answer({ top = [], valid, state }) {
  const share = (score) => (score === null ? "–" : score >= 0 && score <= 1 ? `${(score * 100).toFixed(0)} %` : score.toPrecision(4));
  element("best").textContent = top.length ? top[0].label : "–";
  element("sure").textContent = !top.length ? "no answer yet"
    : `${share(top[0].score)}${state === "warm-up" ? ", from part of a clip" : valid ? "" : ", last valid answer"}`;
  element("answer").classList.toggle("old", state !== "running" && state !== "warm-up");
  const bars = element("bars");
  while (bars.children.length > top.length) bars.lastChild.remove();
  while (bars.children.length < top.length) bars.append(bar());
  const most = Math.max(1, ...top.map(({ score }) => Math.abs(score ?? 0)));
  top.forEach(({ index, label, score }, place) => {
    const [name, value, track] = bars.children[place].children;
    name.textContent = label;
    value.textContent = share(score);
    track.firstChild.style.width = `${(Math.max(score ?? 0, 0) / most) * 100}%`;
    track.firstChild.style.background = chart.colour(index);
  });
}

function bar() {
  const item = document.createElement("li");
  const [name, value, track] = ["span", "span", "span"].map((kind) => document.createElement(kind));
  name.className = "name";
  track.className = "track";
  track.append(document.createElement("i"));
  item.append(name, value, track);
  return item;
}

function tile(id, value, unit, none) {
  const place = element(id);
  const missing = value === null || value === undefined;
  place.classList.toggle("none", missing);
  place.textContent = missing ? (none ?? "unavailable") : value;
  if (missing || !unit) return;
  const small = document.createElement("small");
  small.textContent = ` ${unit}`;
  place.append(small);
}

function tiles({ fps, age, jitter, drops = {}, stages = {}, counts = {}, telemetry }) {
  tile("fps", counts.stepped ? fps.toFixed(1) : null, jitter ? `± ${milliseconds(jitter)} ms` : "", "none yet");
  // A live source has an age at delivery, whose 99th percentile is what counts; a recording has none.
  const old = stages.age ?? stages.step;
  element("age-name").textContent = stages.age ? "Age of answers, p99" : "Step, p99";
  tile("age", old && old.p99 !== null ? milliseconds(old.p99) : null, "ms", "none yet");
  const lost = Object.values(drops).reduce((sum, count) => sum + count, 0);
  tile("drops", lost, counts.frames ? `of ${counts.frames + lost}` : "");
  const watts = telemetry ? Object.values(telemetry.power) : [];
  tile("power", watts.length ? watts.map((value) => value.toFixed(1)).join(" + ") : null, "W");
  element("power").title = telemetry ? Object.keys(telemetry.power).join(", ") || (telemetry.no_power ?? "") : "";
  tile("hottest", telemetry?.hottest?.toFixed(0), telemetry?.throttled.length ? "°C, throttled" : "°C");
}

function milliseconds(seconds) {
  const value = seconds * 1000;
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function tables({ stages = {}, counts = {}, pacer = {}, drops = {} }) {
  element("stages").replaceChildren(...Object.entries(stages).map(([name, stage]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head, ...["p50", "p90", "p99", "max"].map((key) => {
      const cell = document.createElement("td");
      cell.textContent = stage[key] === null ? "–" : milliseconds(stage[key]);
      return cell;
    }));
    return row;
  }));
  const lines = [["delivered", counts.frames], ["stepped", counts.stepped], ["warm answers", counts.warm],
    ["missing in the source", counts.gaps || undefined], ["passed over by the pacer", pacer.passed || undefined],
    ["repeated by the pacer", pacer.repeats || undefined], ["resets by the pacer", pacer.resets || undefined],
    ...Object.entries(drops).map(([cause, count]) => [`dropped: ${cause}`, count])];
  element("counts").replaceChildren(...lines.filter(([, count]) => count !== undefined).flatMap(([name, count]) => {
    const term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = name;
    value.textContent = count.toLocaleString("en");
    return [term, value];
  }));
}

element("reset").addEventListener("click", async () => {
  const button = element("reset");
  button.disabled = true;
  try {
    const answer = await fetch("reset", { method: "POST", headers: { "X-Edgeco": "reset" } });
    button.textContent = answer.ok ? "Reset asked" : "Refused";
  } catch {
    button.textContent = "No connection";
  }
  setTimeout(() => { button.textContent = "Reset"; button.disabled = false; }, 1200);
});
document.addEventListener("visibilitychange", ask);

let drawn = 0;
function draw(now) {
  // Nothing moves while no answers come for longer than the chart is wide; less often where motion is not wanted.
  if (!document.hidden && now - drawn >= (still.matches ? 1000 : 40) && (now - fresh < 65000 || drawn === 0)) {
    drawn = now;
    chart.draw();
  }
  requestAnimationFrame(draw);
}
connect();
requestAnimationFrame(draw);
