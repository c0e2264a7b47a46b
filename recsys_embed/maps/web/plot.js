// Points on a canvas, drawn pixel by pixel: 100,000 of them in milliseconds, without a GPU.

const RADII = [1.2, 1.6, 2.1, 2.7, 3.4, 4.2, 5.2, 6.4, 7.8, 9.4, 11.2, 13.2];

/** Return the pixels of a disc (radius in device pixels): dx, dy, and the coverage of each, 1 to 255, full ones first. */
function disc(radius) {
  const reach = Math.ceil(radius);
  const pixels = [];
  for (let y = -reach; y <= reach; y++)
    for (let x = -reach; x <= reach; x++) {
      const share = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(x, y))));
      if (share) pixels.push([x, y, share]);
    }
  pixels.sort((a, b) => b[2] - a[2]);
  const [dx, dy, share] = [0, 1, 2].map((part) => Int32Array.from(pixels, (p) => p[part]));
  return { reach, dx, dy, share, full: pixels.filter((p) => p[2] === 255).length, offset: null };
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** Draw a disc of a packed colour into an image, with an antialiased rim. */
function blend(pixels, width, height, x, y, colour, { reach, dx, dy, share, full, offset }) {
  if (x < -reach || y < -reach || x >= width + reach || y >= height + reach) return;
  const middle = y * width + x;
  const inside = x >= reach && y >= reach && x < width - reach && y < height - reach;
  const [r, g, b] = [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
  for (let p = 0; p < offset.length; p++) {
    if (!inside && (x + dx[p] < 0 || x + dx[p] >= width || y + dy[p] < 0 || y + dy[p] >= height)) continue;
    const at = middle + offset[p];
    if (p < full) {
      pixels[at] = colour;
      continue;
    }
    const old = pixels[at];
    const alpha = share[p];
    const rest = 255 - alpha;
    pixels[at] =
      (255 << 24) |
      (((b * alpha + ((old >> 16) & 255) * rest) / 255) << 16) |
      (((g * alpha + ((old >> 8) & 255) * rest) / 255) << 8) |
      ((r * alpha + (old & 255) * rest) / 255);
  }
}

class Plot {
  /** points: Float32Array [2n] in -1..1; weight: [n] from 0 (small) to 1 (large); order: rows, drawn from first to last. */
  constructor(canvas, overlay, points, weight, order) {
    Object.assign(this, { canvas, overlay, points, weight, order });
    this.n = weight.length;
    // A point's radius at zoom 1, in pixels, and the index of RADII that is nearest above.
    const [minRadius, range] = this.n > 30000 ? [0.9, 4] : this.n > 5000 ? [1.4, 6] : [2, 6];
    this.radii = weight.map((w) => minRadius + w * w * range);
    this.sizes = Uint8Array.from(this.radii, (r) => Math.max(0, RADII.findIndex((radius, at) => radius >= r || at === RADII.length - 1)));
    this.view = { x: 0, y: 0, zoom: 1 };
    this.lit = new Uint8Array(this.n).fill(1);
    this.colours = new Uint32Array(this.n); // packed
    this.tooltip = -1;
    this.selected = -1;
    this.lines = [];
    this.marked = []; // picks
    this.hinted = []; // recommendations for the picks
    this.labels = []; // rows whose titles are drawn, and their boxes: left, top, right, bottom
    this.boxes = [];
    this.titles = (row) => String(row);
    this.cells = this.grid();
    // Half the width and height of all points; the larger of the two is 1.
    this.half = [0, 1].map((axis) => points.reduce((most, p, at) => (at % 2 === axis ? Math.max(most, Math.abs(p)) : most), 0.05));
    this.scheduled = false;
  }

  /** Return rows by cell of a grid, to find the point under the pointer without checking all points. */
  grid() {
    const side = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(this.n / 4))));
    const cells = Array.from({ length: side * side }, () => []);
    for (let row = 0; row < this.n; row++) cells[this.cellOf(this.points[2 * row], side) + side * this.cellOf(this.points[2 * row + 1], side)].push(row);
    return { side, cells };
  }

  cellOf(coordinate, side) {
    return Math.max(0, Math.min(side - 1, Math.floor(((coordinate + 1) / 2) * side)));
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.width = Math.max(1, Math.round(box.width));
    this.height = Math.max(1, Math.round(box.height));
    // More than two device pixels per CSS pixel cannot be seen, and more than six million pixels cost frames.
    this.ratio = Math.min(globalThis.devicePixelRatio || 1, 2, Math.sqrt(6e6 / (this.width * this.height)));
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(this.width * this.ratio);
      canvas.height = Math.round(this.height * this.ratio);
    }
    this.image = null;
    this.redraw();
  }

  /** CSS pixels per unit of the points' coordinates; `middle`: the position of the view's centre on the canvas. */
  get unit() {
    const { left = 0, right = 0, top = 0, bottom = 0 } = this.inset || {};
    const [x, y] = this.half;
    return 0.46 * Math.min((this.width - left - right) / x, (this.height - top - bottom) / y) * this.view.zoom;
  }

  get middle() {
    const { left = 0, right = 0, top = 0, bottom = 0 } = this.inset || {};
    return [(left + this.width - right) / 2, (top + this.height - bottom) / 2];
  }

  place(row) {
    return this.placeOf([this.points[2 * row], this.points[2 * row + 1]]);
  }

  placeOf([x, y]) {
    const [mx, my] = this.middle;
    return [mx + (x - this.view.x) * this.unit, my - (y - this.view.y) * this.unit];
  }

  at(x, y) {
    const [mx, my] = this.middle;
    return [this.view.x + (x - mx) / this.unit, this.view.y - (y - my) / this.unit];
  }

  /** The factor by which points grow at this zoom. */
  get growth() {
    return Math.min(2.2, Math.max(0.8, this.view.zoom ** 0.35)) * (this.width < 700 ? 0.7 : 1);
  }

  radius(row) {
    return this.radii[row] * this.growth;
  }

  pan(dx, dy) {
    this.view.x -= dx / this.unit;
    this.view.y += dy / this.unit;
    this.redraw();
  }

  zoomAt(x, y, factor) {
    const before = this.at(x, y);
    this.view.zoom = Math.max(0.5, Math.min(400, this.view.zoom * factor));
    const after = this.at(x, y);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.redraw();
  }

  whole() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.redraw();
  }

  /** Move the view to rows, zoomed in far enough to distinguish the first one from its neighbours. */
  show(rows) {
    const xs = rows.map((r) => this.points[2 * r]);
    const ys = rows.map((r) => this.points[2 * r + 1]);
    const spread = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 0.02);
    this.view = {
      x: (Math.max(...xs) + Math.min(...xs)) / 2,
      y: (Math.max(...ys) + Math.min(...ys)) / 2,
      zoom: Math.max(1, Math.min(8, 1.5 / spread)),
    };
    this.redraw();
  }

  /** Return the highlighted row nearest to a position, within some pixels of its rim; or the one whose title is there; or -1. */
  pick(x, y, reach = 6) {
    const { side, cells } = this.cells;
    const [px, py] = this.at(x, y);
    const far = (reach + 20) / this.unit;
    const label = this.boxes.findIndex(([left, top, right, bottom]) => left < x && x < right && top < y && y < bottom);
    let found = label < 0 ? -1 : this.labels[label];
    let nearest = Infinity;
    for (let cy = this.cellOf(py - far, side); cy <= this.cellOf(py + far, side); cy++)
      for (let cx = this.cellOf(px - far, side); cx <= this.cellOf(px + far, side); cx++)
        for (const row of cells[cx + side * cy]) {
          if (!this.lit[row]) continue;
          const [rx, ry] = this.place(row);
          const distance = Math.hypot(rx - x, ry - y) - this.radius(row);
          if (distance < Math.min(reach, nearest)) [nearest, found] = [distance, row];
        }
    return found;
  }

  redraw() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.paint();
    });
  }

  paint() {
    if (!this.width || !this.colour) return;
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d", { alpha: false });
    if (!this.image) {
      this.image = context.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const ground = channels(this.colour.ground);
    this.pixels.fill(packed(ground));
    const discs = RADII.map((r) => disc(r * this.growth * this.ratio));
    for (const d of discs) d.offset = d.dx.map((x, at) => x + width * d.dy[at]);
    const faint = packed(channels(this.colour.dim));
    const [mx, my] = this.middle.map((m) => m * this.ratio);
    const unit = this.unit * this.ratio;
    const { points, order, lit, sizes, colours, view } = this;
    for (let dim = 0; dim <= 1; dim++)
      for (let at = 0; at < order.length; at++) {
        const row = order[at];
        if (lit[row] !== dim) continue;
        const x = Math.round(mx + (points[2 * row] - view.x) * unit);
        const y = Math.round(my - (points[2 * row + 1] - view.y) * unit);
        blend(this.pixels, width, height, x, y, lit[row] ? colours[row] : faint, discs[sizes[row]]);
      }
    context.putImageData(this.image, 0, 0);
    this.decorate();
  }

  /** Draw lines, rings and labels over the points. */
  decorate() {
    const context = this.overlay.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.lineCap = "round";
    for (const { from, to, arrow } of this.lines) this.line(context, from, to, arrow);
    for (const row of this.marked) this.ring(context, row, this.colour.pick, 2.5);
    for (const row of this.hinted) this.ring(context, row, this.colour.pick, 1);
    if (this.selected >= 0) this.ring(context, this.selected, this.colour.text, 2.5);
    if (this.tooltip >= 0 && this.tooltip !== this.selected) this.ring(context, this.tooltip, this.colour.text, 1.5);
    if (this.keyed) this.cross(context);
    this.drawLabels(context);
  }

  /** Mark the middle, from which Enter selects. */
  cross(context) {
    const [x, y] = this.middle;
    context.strokeStyle = this.colour.soft;
    context.lineWidth = 1;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 5 * dx, y + 5 * dy);
      context.lineTo(x + 12 * dx, y + 12 * dy);
    }
    context.stroke();
  }

  line(context, from, to, arrow) {
    const [x1, y1] = typeof from === "number" ? this.place(from) : this.placeOf(from);
    const [x2, y2] = this.place(to);
    context.strokeStyle = this.colour.line;
    context.lineWidth = arrow ? 1 : 1.3;
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (arrow && length > 8) {
      const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
      for (const side of [-1, 1]) {
        context.moveTo(x2, y2);
        context.lineTo(x2 - 5 * ux + side * 3 * uy, y2 - 5 * uy - side * 3 * ux);
      }
    }
    context.stroke();
  }

  ring(context, row, colour, width) {
    const [x, y] = this.place(row);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, this.radius(row) + 3, 0, 2 * Math.PI);
    context.stroke();
  }

  /** Draw titles where they overlap neither each other nor the panels: the selection's, then those drawn before, then the most rated items'. */
  drawLabels(context) {
    const maxLabels = this.width < 700 ? 18 : 45;
    const size = this.width < 700 ? 11 : 12;
    const boxes = [];
    const labels = [];
    const first = [this.selected, ...this.marked, ...this.lines.filter((l) => !l.arrow).map((l) => l.to)].filter((r) => r >= 0);
    const required = new Set(first);
    const candidates = [...required, ...this.labels.filter((r) => !required.has(r) && this.lit[r])];
    const included = new Set(candidates);
    let visible = 0;
    for (let at = this.n - 1; at >= 0 && visible < 400; at--) {
      const row = this.order[at];
      if (!this.lit[row]) continue;
      const [x, y] = this.place(row);
      if (x < 0 || y < 0 || x > this.width || y > this.height) continue;
      visible++;
      if (!included.has(row)) candidates.push(row);
    }
    const { left = 0, right = 0, top = 0, bottom = 0 } = this.inset || {};
    for (const row of candidates) {
      if (labels.length >= maxLabels + required.size) break;
      const [x, y] = this.place(row);
      if (x < left || y < top || x > this.width - right || y > this.height - bottom) continue;
      const strong = required.has(row);
      context.font = `${strong ? 600 : 400} ${size}px system-ui, sans-serif`;
      const text = shortened(this.titles(row), strong ? 44 : 30);
      const width = context.measureText(text).width;
      const distance = this.radius(row) + 4;
      const spots = [[x + distance, y], [x - distance - width, y], [x - width / 2, y - distance - 6], [x - width / 2, y + distance + 6]];
      const free = spots.find(([sx, sy]) => {
        const box = [sx - 3, sy - 8, sx + width + 3, sy + 8];
        if (sx < left + 2 || sx + width > this.width - right - 2 || sy < top + 8 || sy > this.height - bottom - 8) return false;
        return !boxes.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]);
      });
      if (!free) continue;
      const [sx, sy] = free;
      boxes.push([sx - 3, sy - 8, sx + width + 3, sy + 8]);
      context.textBaseline = "middle";
      context.lineJoin = "round";
      context.lineWidth = 3.5;
      context.strokeStyle = this.colour.ground;
      context.strokeText(text, sx, sy);
      context.fillStyle = strong ? this.colour.text : this.colour.soft;
      context.fillText(text, sx, sy);
      labels.push(row);
    }
    this.labels = labels;
    this.boxes = boxes;
  }
}

function shortened(text, length) {
  const letters = [...text];
  return letters.length > length ? letters.slice(0, length - 1).join("").trimEnd() + "…" : text;
}
