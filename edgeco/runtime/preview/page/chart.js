// The moving chart: scores of the best classes over the last minute, under a ribbon that names the best of each moment.

const SPAN = 60;      // seconds shown
const LAG = 0.6;      // seconds behind, so that points arrive before they are due and the chart moves evenly
const GAP = 1.5;      // seconds without an answer that break a line
const LINES = 8;      // as many as there are colours
const RIBBON = 26;

// The most that a class can have which is not among these shares: less than the least of them, and what they leave.
function most(scores) {
  let least = 1, left = 1;
  for (const score of scores.values()) { least = Math.min(least, score); left -= score; }
  return Math.max(0, Math.min(least, left));
}

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.labels = new Map();
    this.slots = new Map();   // class -> number of its colour
    this.clear();
  }

  clear() {
    this.points = [];         // [seconds, Map of class -> score, best class]
    this.offset = null;       // this clock less the server's
  }

  // Points as the server sends them, and its clock when it did.
  add(points, labels, now) {
    const offset = performance.now() / 1000 - now;
    // The quickest message says most about the difference of the clocks; drift is followed slowly.
    this.offset = this.offset === null ? offset : Math.min(this.offset + 0.002, offset);
    for (const [index, label] of Object.entries(labels)) this.labels.set(Number(index), label);
    for (const [at, scores] of points) this.points.push([at, new Map(scores), scores[0][0]]);
    const oldest = now - SPAN - 5;
    let drop = 0;
    while (drop < this.points.length && this.points[drop][0] < oldest) drop++;
    if (drop) this.points.splice(0, drop);
    this.assign();
  }

  // Colours stay with their classes as long as they are on the chart; the classes that reach highest get one.
  assign() {
    const highest = new Map();
    for (const [, scores] of this.points)
      for (const [index, score] of scores) highest.set(index, Math.max(highest.get(index) ?? -Infinity, score));
    const shown = [...highest.keys()].sort((a, b) => highest.get(b) - highest.get(a)).slice(0, LINES);
    for (const index of this.slots.keys()) if (!shown.includes(index)) this.slots.delete(index);
    const taken = new Set(this.slots.values());
    for (const index of shown) {
      if (this.slots.has(index)) continue;
      let slot = 0;
      while (taken.has(slot)) slot++;
      taken.add(slot);
      this.slots.set(index, slot);
    }
  }

  colour(index) {
    const slot = this.slots.get(index);
    return slot === undefined ? this.style("--soft") : this.style(`--c${slot}`);
  }

  style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  range() {
    let low = 0, high = 1;
    for (const [, scores] of this.points)
      for (const score of scores.values()) { low = Math.min(low, score); high = Math.max(high, score); }
    return [low, high, low === 0 && high === 1];
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const [low, high, shares] = this.range();
    const plot = { left: 44, right: width - 6, top: RIBBON + 12, bottom: height - 22 };
    const end = (this.offset === null ? 0 : performance.now() / 1000 - this.offset) - LAG;
    const x = (at) => plot.right - ((end - at) / SPAN) * (plot.right - plot.left);
    const y = (score) => plot.bottom - ((score - low) / (high - low)) * (plot.bottom - plot.top);
    this.grid(pen, plot, x, y, end, low, high, shares);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, 0, plot.right - plot.left, height);
    pen.clip();
    for (const [index, slot] of [...this.slots].reverse()) this.line(pen, index, slot, x, y, shares);
    this.ribbon(pen, plot, x);
    pen.restore();
  }

  grid(pen, plot, x, y, end, low, high, shares) {
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = this.style("--soft");
    pen.strokeStyle = this.style("--line");
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let part = 0; part <= 4; part++) {
      const score = low + ((high - low) * part) / 4;
      const at = Math.round(y(score)) + 0.5;
      pen.beginPath();
      pen.moveTo(plot.left, at);
      pen.lineTo(plot.right, at);
      pen.stroke();
      if (part % 2 === 0) pen.fillText(shares ? `${Math.round(score * 100)} %` : score.toPrecision(3), plot.left - 6, at);
    }
    pen.textAlign = "center";
    for (let ago = 0; ago <= SPAN; ago += 10)
      pen.fillText(ago ? `−${ago} s` : "now", Math.min(Math.max(x(end - ago), plot.left + 12), plot.right - 14), plot.bottom + 13);
  }

  line(pen, index, slot, x, y, shares) {
    pen.strokeStyle = this.style(`--c${slot}`);
    pen.lineWidth = 2.5;
    pen.lineJoin = "round";
    pen.beginPath();
    let before = null;
    for (const [at, scores] of this.points) {
      // A share that is not among the best is drawn as high as it can be; of other scores nothing is known.
      const score = scores.get(index) ?? (shares ? most(scores) : undefined);
      if (score === undefined) { before = null; continue; }
      if (before === null || at - before > GAP) pen.moveTo(x(at), y(score));
      else pen.lineTo(x(at), y(score));
      before = at;
    }
    pen.stroke();
  }

  ribbon(pen, plot, x) {
    pen.font = "600 13px system-ui, sans-serif";
    pen.textBaseline = "middle";
    let start = 0;
    for (let place = 1; place <= this.points.length; place++) {
      const [from, , best] = this.points[start];
      const next = this.points[place];
      const [last] = this.points[place - 1];
      const gap = next !== undefined && next[0] - last > GAP;
      if (next !== undefined && next[2] === best && !gap) continue;
      const left = x(from);
      const right = next === undefined ? Math.max(x(last), plot.right) : x(gap ? last : next[0]);
      this.piece(pen, Math.max(left, plot.left), Math.min(next === undefined ? x(last) : right, plot.right), best);
      start = place;
    }
  }

  piece(pen, left, right, best) {
    if (right - left < 1) return;
    pen.fillStyle = this.colour(best);
    pen.beginPath();
    pen.roundRect(left, 0, Math.max(right - left - 1.5, 1), RIBBON, 5);
    pen.fill();
    const label = this.labels.get(best) ?? String(best);
    const room = right - left - 14;
    if (room < 24) return;
    let text = label;
    if (pen.measureText(text).width > room) {
      while (text.length > 1 && pen.measureText(`${text}…`).width > room) text = text.slice(0, -1);
      if (text.length < 3) return;
      text = `${text}…`;
    }
    pen.fillStyle = this.style("--panel");
    pen.textAlign = "left";
    pen.fillText(text, left + 7, RIBBON / 2 + 1);
  }
}
