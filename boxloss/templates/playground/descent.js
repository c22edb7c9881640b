// Descent: each compared loss moves the prediction on its own from where it is, by gradient descent with momentum.

let descent; // [{name, frames: [box, …], ious: [number, …], broken}, …], while the boxes stay as they are
let scene; // what of the world their picture shows
let frame = 0;
let playing = 0; // the animation's request, while one runs
const GOALS = [0.5, 0.75, 0.95];
const SECONDS = 4;

// A step counts in sides of the target, so that a loss without unit moves boxes of any size alike.
function path(name) {
  const { pred, target, step, momentum, steps, fall } = state;
  const loss = byName.get(name);
  const value = evaluator(loss, target);
  const iou = iouOf(target);
  const side = Math.sqrt(Math.abs((target[2] - target[0]) * (target[3] - target[1]))) || 1;
  const rate = step * side ** (2 - (loss.degree ?? 0));
  const g = new Float64Array(4);
  const velocity = new Float64Array(4);
  const frames = [pred];
  for (let k = 0; k < steps; k++) {
    const box = frames[k];
    value(box, g);
    g.forEach((slope, c) => (velocity[c] = momentum * velocity[c] + slope));
    const now = rate * (fall ? 1 - k / steps : 1);
    const next = box.map((x, c) => x - now * velocity[c]);
    if (!next.every(x => Math.abs(x) <= FURTHEST)) break;
    frames.push(next);
  }
  return { name, frames, ious: frames.map(iou), broken: frames.length <= steps };
}

function run() {
  stop();
  compute();
  frame = 0;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) frame = state.steps;
  else play();
  schedule();
}

function compute() {
  descent = state.compare.map(path);
  // All that the boxes pass, but not much more than the start: some losses throw them far away.
  const [x1, y1, x2, y2] = bounds([state.pred, state.target]);
  const far = Math.max(x2 - x1, y2 - y1);
  const limits = [x1 - far, y1 - far, x2 + far, y2 + far];
  const all = bounds([state.pred, state.target, ...descent.flatMap(({ frames }) => frames)]);
  scene = around(all.map((x, k) => (k < 2 ? Math.max : Math.min)(x, limits[k])), 1.2);
}

function play() {
  const from = performance.now() - (frame / state.steps) * SECONDS * 1000;
  const onFrame = now => {
    const share = Math.max(0, now - from) / (SECONDS * 1000); // a frame can be older than the click
    frame = Math.min(state.steps, Math.floor(share * state.steps));
    playing = frame < state.steps ? requestAnimationFrame(onFrame) : 0;
    drawDescent();
  };
  playing = requestAnimationFrame(onFrame);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
}

function forget() {
  stop();
  descent = undefined;
  frame = 0;
}

function makeDescent() {
  $("run").addEventListener("click", () => {
    if (playing) {
      stop();
      schedule();
    } else if (descent && frame > 0 && frame < state.steps) {
      play();
    } else run();
  });
  $("forget").addEventListener("click", () => {
    forget();
    schedule();
  });
  $("frame").addEventListener("input", event => {
    if (!descent) compute();
    stop();
    frame = Number(event.target.value);
    schedule();
  });
  for (const key of ["step", "momentum", "steps"]) entered($(key), key);
  $("fall").addEventListener("change", event => change({ fall: event.target.checked }));
}

const at = (of, k) => of[Math.min(k, of.length - 1)];

function drawDescent() {
  $("fall").checked = state.fall;
  set($("frame"), { max: state.steps });
  $("frame").value = frame;
  $text("frame-text", `${frame} of ${state.steps}`);
  $text("run", playing ? "Pause" : descent && frame > 0 && frame < state.steps ? "Go on" : "Run");
  $("run").disabled = !state.compare.length;
  $("forget").disabled = !descent;
  $("frame").disabled = !state.compare.length;
  const shown = descent ?? [];
  const lines = shown.map(({ name, ious }) => ({ name, ...looks(name), points: ious.map((y, x) => [x, y]) }));
  drawLines($("ious"), { lines, xRange: [0, state.steps], yRange: [0, 1], xTitle: "step", marked: descent ? frame : NaN });
  const by = state.compare.join(", ");
  $("ious").setAttribute("aria-label", descent ? `IoU by step of ${by}` : "IoU by step: nothing was run yet");
  drawMoved(shown);
  drawDescentTable(shown);
}

function drawMoved(shown) {
  const moved = $("moved");
  const scope = descent ? scene : view;
  moved.replaceChildren();
  for (const which of ["target", "pred"]) element("rect", { class: which, ...asRect(placed(state[which], 800, scope)) }, moved);
  for (const { name, frames } of shown) {
    const { color, dashes } = looks(name);
    const rect = element("rect", asRect(placed(at(frames, frame), 800, scope)), moved);
    set(rect, { "data-loss": name, style: `stroke:${color}`, "stroke-dasharray": dashes });
  }
  const by = state.compare.join(", ");
  moved.setAttribute("aria-label", descent ? `The prediction after step ${frame} of ${by}` : "The boxes at the start");
}

function drawDescentTable(shown) {
  $("ious-table").hidden = !shown.length;
  const made = shown.map(({ name, ious, broken }) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = looks(name).color;
    head.append(swatch, ` ${name}`);
    row.append(head);
    const steps = GOALS.map(goal => ious.findIndex(iou => iou > goal)).map(step => (step < 0 ? "–" : String(step)));
    const end = short(ious.at(-1)) + (broken ? " (flew away)" : "");
    for (const text of [short(at(ious, frame)), end, ...steps]) row.insertCell().textContent = text;
    return row;
  });
  $("ious-rows").replaceChildren(...made);
}
