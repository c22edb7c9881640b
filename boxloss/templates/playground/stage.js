// The stage: both boxes to be moved and resized by pointer, finger or keys, and the chosen loss's pull on the sides.

const stage = $("stage");
const CORNERS = [[0, 1], [2, 1], [2, 3], [0, 3]]; // the places of x and y in a box
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
  const corner = element("g", { class: "image-corner", tabindex: 0, role: "group" }, stage);
  shapes.imageCorner = corner;
  element("circle", { class: "hit corner", r: 16 }, corner);
  element("circle", { class: "dot", r: 5 }, corner);
  draggable(corner, () => [...state.image], (start, dx, dy) => {
    const size = [start[0] + dx, start[1] + dy].map(snapped);
    if (Math.min(...size) > 0) change({ image: size });
  });
  nudged(corner, (dx, dy) => change({ image: [rounded(state.image[0] + dx), rounded(state.image[1] + dy)] }));
}

function makeBox(which) {
  const group = element("g", { class: `box ${which}`, tabindex: 0, role: "group", "aria-describedby": "keys" }, stage);
  const made = { group, hit: element("rect", { class: "hit" }, group), rect: element("rect", { class: "side" }, group) };
  made.label = element("text", { class: "label", "aria-hidden": "true" }, group);
  made.label.textContent = TITLES[which];
  draggable(made.hit, () => [...state[which]], (start, ...moved) => {
    const by = moved.map((length, axis) => (length ? snapped(start[axis] + length) - start[axis] : 0));
    change({ [which]: start.map((x, k) => rounded(x + by[k % 2])) });
  });
  made.corners = CORNERS.map(([xPlace, yPlace]) => {
    const hit = element("circle", { class: "hit corner", r: 14 }, group);
    const dot = element("circle", { class: "dot", r: 5 }, group);
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
    const across = box[(place + 2) % 4];
    found[place] = place < 2 ? Math.min(moved, Math.max(box[place], across)) : Math.max(moved, Math.min(box[place], across));
  }
  return found;
}

const width = () => stage.getBoundingClientRect().width || 1;
const unit = () => view.w / width(); // a pixel of the screen
const grid = () => 10 ** Math.floor(Math.log10(unit() * 2));
const snapped = x => rounded(Math.round(x / grid()) * grid());

function draggable(handle, begin, move) {
  handle.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.preventDefault();
    handle.closest("[tabindex]").focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    const from = { x: event.clientX, y: event.clientY, of: begin() };
    const onMove = moved => {
      const [x, y] = [moved.clientX - from.x, moved.clientY - from.y];
      dragging ||= Math.hypot(x, y) >= 3; // a click is no drag, however unsteady the hand
      if (dragging) move(from.of, x * unit(), y * unit());
    };
    const onEnd = () => {
      handle.removeEventListener("pointermove", onMove);
      dragging = false;
      if (!inView()) fit();
      schedule();
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

// Around all boxes, of which a descent has more than a call can have arguments.
const bounds = boxes =>
  boxes.reduce(
    ([left, top, right, bottom], [x1, y1, x2, y2]) => [
      ...[Math.min(left, x1, x2), Math.min(top, y1, y2)],
      ...[Math.max(right, x1, x2), Math.max(bottom, y1, y2)],
    ],
    [Infinity, Infinity, -Infinity, -Infinity],
  );

function inView() {
  const [x1, y1, x2, y2] = bounds([state.pred, state.target]);
  return x1 >= view.x && y1 >= view.y && x2 <= view.x + view.w && y2 <= view.y + view.h;
}

// The view around both boxes, or around the image and the boxes, in the stage's proportions.
function fit(whole = false) {
  const boxes = [state.pred, state.target];
  view = whole ? around(bounds([...boxes, [0, 0, ...state.image]]), 1.1) : around(bounds(boxes), 2.2);
  schedule();
}

// A view in the stage's proportions with so many times a rectangle in it.
function around([x1, y1, x2, y2], times) {
  const least = Math.max(Math.abs(x1), Math.abs(x2), Math.abs(y1), Math.abs(y2), 1e-6) * 1e-6;
  const h = Math.max((y2 - y1) * times, (x2 - x1) * times * 0.75, least);
  const w = h / 0.75;
  return { x: (x1 + x2 - w) / 2, y: (y1 + y2 - h) / 2, w, h };
}

// -- drawing ------------------------------------------------------------------------------------------------------------

// Numbers of the boxes as places in a picture of the view, so wide: SVG's own are single precision.
const placed = (box, wide, of = view) => box.map((x, k) => ((x - (k % 2 ? of.y : of.x)) / of.w) * wide);
const asRect = ([x1, y1, x2, y2]) => ({
  ...{ x: Math.min(x1, x2), width: Math.abs(x2 - x1) },
  ...{ y: Math.min(y1, y2), height: Math.abs(y2 - y1) },
});

function drawStage(g) {
  const wide = width();
  const [pred, target, image] = [state.pred, state.target, [0, 0, ...state.image]].map(box => placed(box, wide));
  set(stage, { viewBox: `0 0 ${wide} ${wide * 0.75}` });
  set(shapes.image, asRect(image));
  set(shapes.hull, asRect(bounds([pred, target])));
  const overlap = [0, 1, 2, 3].map(k => (k < 2 ? Math.max : Math.min)(pred[k], target[k]));
  const overlaps = overlap[0] < overlap[2] && overlap[1] < overlap[3];
  set(shapes.overlap, overlaps ? asRect(overlap) : { width: 0, height: 0 });
  drawBox("target", target, pred);
  drawBox("pred", pred, target);
  const area = ([x1, y1, x2, y2]) => Math.abs((x2 - x1) * (y2 - y1));
  putInFront(...(area(target) < area(pred) ? ["target", "pred"] : ["pred", "target"]));
  set(shapes.imageCorner, { transform: `translate(${image[2]},${image[3]})` });
  shapes.imageCorner.setAttribute("aria-label", `Image size ${state.image.map(plain).join(" × ")}`);
  drawArrows(g, pred);
}

// The smaller box, so that it can be grabbed inside the other. Who holds a box by pointer or keys is not disturbed.
function putInFront(smaller, larger) {
  const [front, back] = [shapes[smaller].group, shapes[larger].group];
  const isBehind = front.compareDocumentPosition(back) & Node.DOCUMENT_POSITION_FOLLOWING;
  if (isBehind && !dragging && !back.contains(document.activeElement)) stage.insertBefore(back, front);
}

const inverted = ([x1, y1, x2, y2]) => x2 < x1 || y2 < y1;

function drawBox(which, box, other) {
  const { group, hit, rect, label, corners } = shapes[which];
  const at = asRect(box);
  const more = Math.max(0, (24 - Math.min(at.width, at.height)) / 2); // room for a finger
  set(rect, at);
  set(hit, { x: at.x - more, y: at.y - more, width: at.width + 2 * more, height: at.height + 2 * more });
  // The labels stay apart: that of the upper box is above it, that of the lower one below it.
  const difference = box[1] + box[3] - other[1] - other[3];
  const upper = difference < 0 || (difference === 0 && which === "pred");
  set(label, { x: at.x, y: upper ? at.y - 8 : at.y + at.height + 18 });
  for (const corner of corners) {
    for (const circle of [corner.hit, corner.dot]) set(circle, { cx: box[corner.xPlace], cy: box[corner.yPlace] });
  }
  const numbers = FORMATS.xyxy.labels.map((name, k) => `${name} ${plain(state[which][k])}`);
  group.setAttribute("aria-label", `${TITLES[which]}: ${numbers.join(", ")}`);
}

// Where descent moves each side; the longest arrow has always the same length.
function drawArrows(g, [x1, y1, x2, y2]) {
  const middle = [(x1 + x2) / 2, (y1 + y2) / 2];
  const from = [[x1, middle[1]], [middle[0], y1], [x2, middle[1]], [middle[0], y2]];
  const largest = Math.max(...g.map(Math.abs));
  shapes.arrows.replaceChildren();
  if (!(largest > 0 && largest < Infinity)) return;
  g.forEach((slope, k) => {
    const length = (-slope / largest) * 54;
    if (Math.abs(length) < 2) return;
    const head = Math.sign(length) * Math.min(10, Math.abs(length));
    const [x, y] = from[k];
    const point = (along, across) => (k % 2 ? `${x + across},${y + along}` : `${x + along},${y + across}`);
    element("path", { class: "halo", d: `M${point(0, 0)}L${point(length, 0)}` }, shapes.arrows);
    element("path", { d: `M${point(0, 0)}L${point(length - head, 0)}` }, shapes.arrows);
    const [left, right] = [5, -5].map(across => point(length - head, across));
    element("path", { class: "head", d: `M${point(length, 0)}L${left}L${right}Z` }, shapes.arrows);
  });
}
