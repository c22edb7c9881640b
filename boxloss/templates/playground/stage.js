// The stage: both boxes to be moved and resized by pointer, finger or keys, and the chosen loss's pull on the sides.

const stage = $("stage");
const CORNERS = [["x1 y1", 0, 1], ["x2 y1", 2, 1], ["x2 y2", 2, 3], ["x1 y2", 0, 3]];
const TITLES = { target: "Target", pred: "Prediction" };
let view = { x: 0, y: 0, w: 640, h: 480 };

function element(name, attributes = {}, parent = undefined) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

const set = (of, attributes) => Object.entries(attributes).forEach(([key, value]) => of.setAttribute(key, value));

const shapes = {};
function makeStage() {
  shapes.image = element("rect", { class: "image" }, stage);
  shapes.hull = element("rect", { class: "hull" }, stage);
  for (const which of ["target", "pred"]) shapes[which] = makeBox(which);
  shapes.overlap = element("rect", { class: "overlap" }, stage);
  stage.insertBefore(shapes.overlap, shapes.target.group);
  shapes.arrows = element("g", { class: "arrows", "aria-hidden": "true" }, stage);
  const corner = element("g", { class: "corner image-corner", tabindex: 0, role: "group" }, stage);
  shapes.imageCorner = { group: corner, hit: element("circle", { class: "hit" }, corner), dot: element("circle", { class: "dot" }, corner) };
  draggable(corner, () => [...state.image], (start, dx, dy) => {
    const size = [start[0] + dx, start[1] + dy].map(snapped);
    if (Math.min(...size) > 0) change({ image: size });
  });
  nudged(corner, (dx, dy) => change({ image: [Math.max(1, state.image[0] + dx), Math.max(1, state.image[1] + dy)] }));
}

function makeBox(which) {
  const group = element("g", { class: `box ${which}`, tabindex: 0, role: "group", "aria-describedby": "keys" }, stage);
  const made = { group, hit: element("rect", { class: "hit" }, group), rect: element("rect", { class: "side" }, group) };
  made.label = element("text", { class: "label", "aria-hidden": "true" }, group);
  made.label.textContent = TITLES[which];
  draggable(made.hit, () => [...state[which]], (start, dx, dy) => {
    const by = [snapped(start[0] + dx) - start[0], snapped(start[1] + dy) - start[1]];
    change({ [which]: start.map((x, k) => rounded(x + by[k % 2])) });
  });
  made.corners = CORNERS.map(([, xPlace, yPlace]) => {
    const hit = element("circle", { class: "hit corner" }, group);
    const dot = element("circle", { class: "dot" }, group);
    draggable(hit, () => [...state[which]], (start, dx, dy) => change({ [which]: resized(start, xPlace, yPlace, dx, dy) }));
    return { hit, dot, xPlace, yPlace };
  });
  nudged(group, (dx, dy, resize) => {
    const box = [...state[which]];
    change({ [which]: resize ? resized(box, 2, 3, dx, dy) : box.map((x, k) => rounded(x + (k % 2 ? dy : dx))) });
  });
  return made;
}

// A corner does not go past the one across.
function resized(box, xPlace, yPlace, dx, dy) {
  const found = [...box];
  for (const [place, by] of [[xPlace, dx], [yPlace, dy]]) {
    const moved = by ? snapped(box[place] + by) : box[place];
    found[place] = place < 2 ? Math.min(moved, Math.max(box[place], box[place + 2])) : Math.max(moved, Math.min(box[place], box[place - 2]));
  }
  return found;
}

const unit = () => view.w / (stage.getBoundingClientRect().width || 1); // a pixel of the screen
const grid = () => 10 ** Math.floor(Math.log10(unit() * 2));
const snapped = x => rounded(Math.round(x / grid()) * grid());

function draggable(handle, begin, move) {
  handle.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.preventDefault();
    handle.closest("[tabindex]").focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    const from = { x: event.clientX, y: event.clientY, of: begin() };
    dragging = true;
    const onMove = moved => move(from.of, (moved.clientX - from.x) * unit(), (moved.clientY - from.y) * unit());
    const onEnd = () => {
      handle.removeEventListener("pointermove", onMove);
      dragging = false;
      if (!inView()) fit();
      change({});
    };
    handle.addEventListener("pointermove", onMove);
    handle.addEventListener("lostpointercapture", onEnd, { once: true });
  });
}

// Arrow keys: a step of the grid, ten with Shift; with Alt the lower right corner alone.
function nudged(group, move) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  group.addEventListener("keydown", event => {
    const way = ways[event.key];
    if (!way || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const step = grid() * (event.shiftKey ? 10 : 1);
    move(way[0] * step, way[1] * step, event.altKey);
    if (!inView()) fit();
  });
}

// -- what is in view ----------------------------------------------------------------------------------------------------

const bounds = boxes => [
  Math.min(...boxes.flatMap(([x1, , x2]) => [x1, x2])),
  Math.min(...boxes.flatMap(([, y1, , y2]) => [y1, y2])),
  Math.max(...boxes.flatMap(([x1, , x2]) => [x1, x2])),
  Math.max(...boxes.flatMap(([, y1, , y2]) => [y1, y2])),
];

function inView() {
  const [x1, y1, x2, y2] = bounds([state.pred, state.target]);
  return x1 >= view.x && y1 >= view.y && x2 <= view.x + view.w && y2 <= view.y + view.h;
}

// The view around both boxes, or around the image and the boxes, in the stage's proportions.
function fit(whole = false) {
  const [x1, y1, x2, y2] = bounds([state.pred, state.target, ...(whole ? [[0, 0, ...state.image]] : [])]);
  const margin = whole ? 1.1 : 2.2;
  const ratio = 4 / 3;
  const least = Math.max(Math.abs(x1), Math.abs(x2), Math.abs(y1), Math.abs(y2), 1e-6) * 1e-6;
  const h = Math.max((y2 - y1) * margin, ((x2 - x1) * margin) / ratio, least);
  view = { x: (x1 + x2) / 2 - (h * ratio) / 2, y: (y1 + y2) / 2 - h / 2, w: h * ratio, h };
  schedule();
}

// -- drawing ------------------------------------------------------------------------------------------------------------

const asRect = ([x1, y1, x2, y2]) => ({ x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) });

function drawStage(g) {
  const px = unit();
  set(stage, { viewBox: `${view.x} ${view.y} ${view.w} ${view.h}` });
  const { pred, target } = state;
  set(shapes.image, asRect([0, 0, ...state.image]));
  set(shapes.hull, asRect(bounds([pred, target])));
  const overlap = [0, 1, 2, 3].map(k => (k < 2 ? Math.max : Math.min)(pred[k], target[k]));
  const overlaps = overlap[0] < overlap[2] && overlap[1] < overlap[3];
  set(shapes.overlap, overlaps ? asRect(overlap) : { width: 0, height: 0 });
  drawBox("target", px);
  drawBox("pred", px);
  set(shapes.imageCorner.group, { transform: `translate(${state.image})`, "aria-label": `Image size ${state.image.map(plain).join(" × ")}` });
  set(shapes.imageCorner.hit, { r: 16 * px });
  set(shapes.imageCorner.dot, { r: 5 * px });
  drawArrows(g, px);
}

function drawBox(which, px) {
  const box = state[which];
  const { group, hit, rect, label, corners } = shapes[which];
  const at = asRect(box);
  const wider = (24 * px - Math.min(at.width, at.height)) / 2;
  const more = Math.max(0, wider);
  set(rect, at);
  set(hit, { x: at.x - more, y: at.y - more, width: at.width + 2 * more, height: at.height + 2 * more });
  // The labels stay apart: that of the upper box is above it, that of the lower one below it.
  const predUpper = state.pred[1] + state.pred[3] < state.target[1] + state.target[3];
  const upper = predUpper === (which === "pred");
  set(label, { x: at.x, y: upper ? at.y - 8 * px : at.y + at.height + 18 * px, "font-size": 14 * px });
  for (const corner of corners) {
    set(corner.hit, { cx: box[corner.xPlace], cy: box[corner.yPlace], r: 14 * px });
    set(corner.dot, { cx: box[corner.xPlace], cy: box[corner.yPlace], r: 5 * px });
  }
  group.setAttribute("aria-label", `${TITLES[which]}: ${FORMATS.xyxy.labels.map((name, k) => `${name} ${plain(box[k])}`).join(", ")}`);
}

// Where descent moves each side; the longest arrow has always the same length.
function drawArrows(g, px) {
  const [x1, y1, x2, y2] = state.pred;
  const middle = [(x1 + x2) / 2, (y1 + y2) / 2];
  const from = [[x1, middle[1]], [middle[0], y1], [x2, middle[1]], [middle[0], y2]];
  const largest = Math.max(...[...g].map(Math.abs));
  shapes.arrows.replaceChildren();
  if (!(largest > 0 && largest < Infinity)) return;
  g.forEach((slope, k) => {
    const length = (-slope / largest) * 54 * px;
    if (Math.abs(length) < 2 * px) return;
    const head = Math.sign(length) * Math.min(10 * px, Math.abs(length));
    const [x, y] = from[k];
    const [along, across] = k % 2 ? [[0, 1], [1, 0]] : [[1, 0], [0, 1]];
    const point = (a, b) => `${x + along[0] * a + across[0] * b},${y + along[1] * a + across[1] * b}`;
    element("path", { class: "halo", d: `M${point(0, 0)}L${point(length, 0)}` }, shapes.arrows);
    element("path", { d: `M${point(0, 0)}L${point(length - head, 0)}` }, shapes.arrows);
    element("path", { class: "head", d: `M${point(length, 0)}L${point(length - head, 5 * px)}L${point(length - head, -5 * px)}Z` }, shapes.arrows);
  });
}
