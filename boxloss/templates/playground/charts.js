// Charts: the losses along a line, and the chosen one as a map over the places of the prediction's center.

const PLOT = { width: 520, height: 300, left: 52, right: 16, top: 10, bottom: 34 };

// Lines over a common axis. Each: {name, color, dashes, points: [[x, y], …]}; marked is a value of x.
function drawLines(svg, { lines, xRange, yRange, xTitle, marked }) {
  const { width, height, left, right, top, bottom } = PLOT;
  const [x0, x1] = xRange;
  const [y0, y1] = yRange;
  const atX = x => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
  const atY = y => height - bottom - ((y - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const path = (kind, d) => element("path", { class: kind, d }, svg);
  const text = (x, y, anchor, of) => (element("text", { x, y, "text-anchor": anchor }, svg).textContent = of);
  svg.replaceChildren();
  for (const y of ticks(y0, y1, 5)) {
    path("grid", `M${left},${atY(y)}H${width - right}`);
    text(left - 6, atY(y) + 4, "end", tick(y, y1 - y0));
  }
  const few = tick(x0, x1 - x0).length > 7 || tick(x1, x1 - x0).length > 7 ? 2 : 7;
  for (const x of ticks(x0, x1, few)) {
    const label = tick(x, x1 - x0);
    const edge = width - right - atX(x) < 4 * label.length;
    text(atX(x), height - bottom + 16, edge ? "end" : "middle", label);
  }
  text((left + width - right) / 2, height - 3, "middle", xTitle);
  if (marked >= x0 && marked <= x1) path("marked", `M${atX(marked)},${top}V${height - bottom}`);
  for (const { name, color, dashes, points } of lines) {
    let d = "";
    let pen = "M";
    for (const [x, y] of points) {
      if (!Number.isFinite(y)) pen = "M";
      else {
        d += `${pen}${atX(x).toFixed(1)},${atY(Math.min(Math.max(y, y0 - (y1 - y0)), y1 + (y1 - y0))).toFixed(1)}`;
        pen = "L";
      }
    }
    set(path("line", d), { "data-loss": name, style: `stroke:${color}`, "stroke-dasharray": dashes });
  }
}

// As many digits as tell neighbours in so wide a range apart.
function tick(x, range) {
  const digits = Math.ceil(Math.log10(Math.max(1, Math.abs(x / range)))) + 3;
  const text = String(Number(x.toPrecision(Math.min(digits, 17))));
  return (text.length > 12 ? x.toExponential(2) : text).replaceAll("-", "−");
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0 && raw < Infinity)) return [];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * power).find(k => k >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

function drawLegend(list, items) {
  const key = JSON.stringify(items.map(({ name, color, dashes, note }) => [name, color, dashes, note]));
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const made = items.map(({ name, color, dashes, note }) => {
    const item = document.createElement("li");
    const svg = element("svg", { viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" }, item);
    element("path", { class: "line", d: "M0,4H28", style: `stroke:${color}`, "stroke-dasharray": dashes }, svg);
    item.append(` ${name}${note ? ` ${note}` : ""}`);
    return item;
  });
  list.replaceChildren(...made);
}

// -- along a line -------------------------------------------------------------------------------------------------------

// How the prediction changes along each line, which end is where, and where it is now.
function lineOf(name, pred, target) {
  const axis = name === "x" || name === "w" ? 0 : 1;
  const center = box => (box[axis] + box[axis + 2]) / 2;
  const side = box => Math.abs(box[axis + 2] - box[axis]);
  const moved = by => pred.map((x, k) => (k % 2 === axis ? x + by : x));
  if (name === "x" || name === "y") {
    const reach = Math.max(1.25 * (side(pred) + side(target)), 1.1 * Math.abs(center(pred) - center(target)), 1e-6);
    return {
      range: [center(target) - reach, center(target) + reach],
      now: center(pred),
      at: x => moved(x - center(pred)),
      slope: g => g[axis] + g[axis + 2],
      title: `${name} of the prediction’s center`,
    };
  }
  const largest = 2.5 * Math.max(side(pred), side(target), 1e-6);
  return {
    range: [0, largest],
    now: side(pred),
    at: length => pred.map((x, k) => (k % 2 === axis ? center(pred) + (k < 2 ? -length : length) / 2 : x)),
    slope: g => (g[axis + 2] - g[axis]) / 2,
    title: `${LINES[name]} of the prediction, about its center`,
  };
}

const POINTS = 160; // of a line; while a box is dragged fewer, if there are many lines

function drawAlong() {
  const line = lineOf(state.line, state.pred, state.target);
  const g = new Float64Array(4);
  const [low, high] = line.range;
  const count = dragging ? Math.max(40, Math.min(POINTS, Math.floor(960 / state.compare.length))) : POINTS;
  const made = state.compare.map(name => {
    const loss = byName.get(name);
    const value = evaluator(loss, state.target);
    const points = [];
    for (let k = 0; k <= count; k++) {
      const x = low + ((high - low) * k) / count;
      const y = value(line.at(x), g);
      points.push([x, state.show === "value" ? y : line.slope(g)]);
    }
    return { name, loss, points, ...looks(name) };
  });
  // Slopes, and losses in lengths or areas, have no scale in common: each is drawn as a share of its own largest.
  for (const of of made) {
    const largest = of.points.reduce((most, [, y]) => (Number.isFinite(y) ? Math.max(most, Math.abs(y)) : most), 0);
    if ((state.show === "slope" || of.loss.degree) && largest > 0) {
      of.points = of.points.map(([x, y]) => [x, y / largest]);
      of.note = `÷ ${short(largest, 3)}`;
    }
  }
  const ys = made.flatMap(of => of.points.map(([, y]) => y)).filter(Number.isFinite);
  const yRange = [Math.min(0, ...ys), Math.max(state.show === "slope" ? 0 : 1, ...ys)];
  drawLines($("along"), { lines: made, xRange: line.range, yRange, xTitle: line.title, marked: line.now });
  drawLegend($("along-legend"), made);
  $("nothing").hidden = made.length > 0;
  $("line").value = state.line;
  $("show").value = state.show;
  $("along").setAttribute("aria-label", `${SHOWN[state.show]} of ${state.compare.join(", ") || "no loss"} by ${line.title}`);
}

// -- the landscape --------------------------------------------------------------------------------------------------------

// Cividis, at every eighth of the scale: people who see fewer colors read it alike.
const CIVIDIS = [
  ...[[0, 34, 78], [35, 62, 108], [65, 77, 107], [87, 93, 109]],
  ...[[112, 113, 115], [138, 134, 120], [166, 157, 117], [196, 181, 108], [254, 232, 56]],
];
const NO_NUMBER = [255, 0, 0];
const CELLS = { fine: [96, 72], coarse: [32, 24] };
let landscape = { key: "", fine: false };

function colorAt(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const k = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return CIVIDIS[k].map((low, c) => low + (CIVIDIS[k + 1][c] - low) * (place - k));
}

// Centers around the target's, so far that the boxes touch half way.
function reachOf(pred, target) {
  const sides = [0, 1].map(axis => Math.abs(pred[axis + 2] - pred[axis]) + Math.abs(target[axis + 2] - target[axis]));
  const h = Math.max(sides[1], sides[0] * 0.75, 1e-6);
  return [h / 0.75, h];
}

const centerOf = ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];

function drawLandscape() {
  const loss = byName.get(state.loss);
  const sides = [state.pred[2] - state.pred[0], state.pred[3] - state.pred[1]];
  const numbers = loss.inputs.map(name => state[stateOf(name)]);
  const key = JSON.stringify([loss.name, state.target, sides, numbers]);
  if (key !== landscape.key || (!landscape.fine && !dragging)) paintLandscape(loss, sides, dragging ? "coarse" : "fine");
  landscape.key = key;
  drawLandscapeMarks();
}

function paintLandscape(loss, sides, size) {
  const [columns, lines] = CELLS[size];
  const [reachX, reachY] = reachOf(state.pred, state.target);
  const [cx, cy] = centerOf(state.target);
  const value = evaluator(loss, state.target);
  const g = new Float64Array(4);
  const values = new Float64Array(columns * lines);
  const flat = new Uint8Array(columns * lines);
  for (let k = 0; k < values.length; k++) {
    const x = cx - reachX + (2 * reachX * ((k % columns) + 0.5)) / columns;
    const y = cy - reachY + (2 * reachY * (Math.floor(k / columns) + 0.5)) / lines;
    values[k] = value([x - sides[0] / 2, y - sides[1] / 2, x + sides[0] / 2, y + sides[1] / 2], g);
    flat[k] = g[0] === 0 && g[1] === 0 && g[2] === 0 && g[3] === 0;
  }
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const image = new ImageData(columns, lines);
  values.forEach((of, k) => {
    const color = Number.isFinite(of) ? colorAt((of - low) / (high - low || 1)) : NO_NUMBER;
    image.data.set([...color, 255], 4 * k);
  });
  showPicture(image, flat);
  landscape.fine = size === "fine";
  const someFlat = flat.includes(1);
  $("landscape-odd").hidden = finite.length === values.length;
  $text("landscape-low", finite.length ? short(low, 3) : "");
  $text("landscape-high", finite.length ? short(high, 3) : "");
  $("landscape-flat").hidden = !someFlat;
  const range = `from ${short(low, 3)} to ${short(high, 3)}${someFlat ? "; without gradient where it is hatched" : ""}`;
  $("landscape").setAttribute("aria-label", `${loss.name} by where the prediction’s center is: ${range}`);
}

// The cells run into one another; those without a gradient are hatched.
function showPicture(image, flat) {
  const canvas = $("landscape");
  Object.assign(canvas, { width: 768, height: 576 });
  const small = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  const side = canvas.width / image.width;
  context.beginPath();
  flat.forEach((is, k) => {
    const [x, y] = [(k % image.width) * side, Math.floor(k / image.width) * side];
    if (!is || (x + y) % 16) return;
    context.moveTo(x, y + side);
    context.lineTo(x + side, y);
  });
  for (const look of [{ strokeStyle: "#0008", lineWidth: 2.5 }, { strokeStyle: "#fffa", lineWidth: 1 }]) {
    Object.assign(context, look).stroke();
  }
}

function drawLandscapeMarks() {
  const marks = $("landscape-marks");
  const [reachX, reachY] = reachOf(state.pred, state.target);
  const [cx, cy] = centerOf(state.target);
  const scale = 400 / reachX; // the picture is 800 by 600
  const center = centerOf(state.pred);
  const [x, y] = [400 + (center[0] - cx) * scale, 300 + (center[1] - cy) * scale];
  marks.replaceChildren();
  const rect = asRect(state.target.map((edge, k) => (k % 2 ? 300 + (edge - cy) * scale : 400 + (edge - cx) * scale)));
  for (const kind of ["halo", ""]) {
    element("rect", { class: kind, ...rect }, marks);
    element("path", { class: kind, d: `M${x - 12},${y}H${x + 12}M${x},${y - 12}V${y + 12}` }, marks);
  }
}

function makeLandscape() {
  const canvas = $("landscape");
  canvas.addEventListener("click", event => {
    const box = canvas.getBoundingClientRect();
    const [reachX, reachY] = reachOf(state.pred, state.target);
    const to = [
      centerOf(state.target)[0] + reachX * ((2 * (event.clientX - box.x)) / box.width - 1),
      centerOf(state.target)[1] + reachY * ((2 * (event.clientY - box.y)) / box.height - 1),
    ];
    const by = centerOf(state.pred).map((at, k) => snapped(to[k] - at));
    change({ pred: state.pred.map((x, k) => rounded(x + by[k % 2])) });
    if (!inView()) fit();
  });
  $("landscape-scale").style.background = `linear-gradient(to right, ${CIVIDIS.map(color => `rgb(${color})`)})`;
}
