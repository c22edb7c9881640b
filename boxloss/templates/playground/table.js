// The table of every loss, the chosen loss in words, and the boxes as numbers.

const rows = new Map();
const UNSORTED = { key: "place", falling: false };
let order = UNSORTED;

function makeTable() {
  const body = $("losses");
  LOSSES.forEach((loss, place) => {
    const row = body.insertRow();
    const cells = [0, 1, 2, 3].map(k => (k === 1 ? row.appendChild(document.createElement("th")) : row.insertCell()));
    cells[1].scope = "row";
    const box = Object.assign(document.createElement("input"), { type: "checkbox" });
    box.setAttribute("aria-label", `Compare ${loss.name}`);
    box.addEventListener("change", () => {
      const others = state.compare.filter(name => name !== loss.name);
      change({ compare: box.checked ? [...others, loss.name] : others });
    });
    const choose = Object.assign(document.createElement("button"), { type: "button", textContent: loss.name });
    choose.addEventListener("click", () => change({ loss: loss.name }));
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    cells[0].append(box, swatch);
    cells[1].append(choose);
    if (loss.degree) cells[1].append(Object.assign(document.createElement("small"), { textContent: loss.unit }));
    rows.set(loss.name, { row, box, choose, swatch, value: cells[2], gradient: cells[3], loss, place });
  });
  for (const head of document.querySelectorAll("#table th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const again = order.key === head.dataset.key;
      order = again && order.falling ? UNSORTED : { key: head.dataset.key, falling: again };
      schedule();
    });
  }
}

// The values of all losses; the chosen one's, with its gradient.
function drawTable() {
  const g = new Float64Array(4);
  let chosen;
  for (const of of rows.values()) {
    of.number = evaluator(of.loss, state.target)(state.pred, g);
    of.norm = norm(g);
    of.value.textContent = short(of.number);
    of.gradient.textContent = short(of.norm);
    const isChosen = of.loss.name === state.loss;
    if (isChosen) chosen = { loss: of.loss, value: of.number, g: Float64Array.from(g), norm: of.norm };
    of.row.classList.toggle("chosen", isChosen);
    of.choose.setAttribute("aria-pressed", isChosen);
    const compared = state.compare.includes(of.loss.name);
    of.box.checked = compared;
    of.swatch.style.background = compared ? looks(of.loss.name).color : "";
  }
  sortTable();
  return chosen;
}

function sortTable() {
  const sign = order.falling ? -1 : 1;
  const by = { place: of => of.place, compare: of => !of.box.checked, name: of => of.loss.name, value: of => of.number, norm: of => of.norm }[order.key];
  const sorted = [...rows.values()].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a.place - b.place;
    return sign * ((x > y) - (x < y)) || a.place - b.place;
  });
  const body = $("losses");
  const focused = document.activeElement;
  sorted.forEach(({ row }, k) => {
    if (body.rows[k] !== row) body.insertBefore(row, body.rows[k]);
  });
  if (body.contains(focused)) focused.focus({ preventScroll: true }); // a row that moves loses it
  for (const head of document.querySelectorAll("#table th[data-key]")) {
    if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

// Color and dashes of each loss, the same whatever else is compared: those of the library's figures, and others in turn.
const others = LOSSES.map(loss => loss.name).filter(name => !Object.hasOwn(COLORS, name));
function looks(name) {
  const known = Object.keys(COLORS).indexOf(name);
  if (known >= 0) return { color: COLORS[name], dashes: DASHES[known % DASHES.length] };
  const place = others.indexOf(name);
  const count = MORE_COLORS.length;
  return { color: MORE_COLORS[place % count], dashes: DASHES[Math.floor(place / count) % DASHES.length] };
}

const $text = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

function drawChosen({ loss, value, g, norm: size }) {
  $text("chosen-name", loss.name);
  $text("chosen-summary", loss.summary);
  $text("chosen-formula", loss.definition);
  $("chosen-formula").hidden = !loss.definition;
  $text("chosen-explanation", loss.explanation);
  $("chosen-detached").hidden = !loss.detached;
  $text("chosen-source", loss.source ? `Source: ${loss.source}.` : "");
  $text("chosen-settings", loss.settings ? `Here with ${loss.settings}.` : "");
  $text("chosen-warning", loss.warning ? `It is ${loss.warning}.` : "");
  $text("chosen-value", short(value, 6));
  FORMATS.xyxy.labels.forEach((name, k) => $text(`side-${name}`, `${name} ${short(g[k])}`));
  $text("python", python(loss));
  const overlap = iouOf(state.target)(state.pred);
  const empty = Object.keys(TITLES).filter(which => inverted(state[which]));
  const warning = empty.map(which => ` ${TITLES[which]} inverted: it counts as empty.`).join("");
  $text("readout", `${loss.name} ${short(value)} · |gradient| ${short(size)} · IoU ${short(overlap)}${warning && "."}${warning}`);
  clearTimeout(drawChosen.later);
  drawChosen.later = setTimeout(() => $text("spoken", $("readout").textContent), 400);
}

// What gives the same number in Python.
function python(loss) {
  const boxes = ["pred", "target"].map(which => `torch.tensor([${state[which].join(", ")}], dtype=torch.float64)`);
  const told = loss.inputs.map(name => `${name}=${name === IMAGE ? `(${state.image.join(", ")})` : state[stateOf(name)]}`);
  const keywords = [loss.keywords, ...told].filter(Boolean).map(text => `, ${text}`).join("");
  return `${loss.imports}\n\npred = ${boxes[0]}\ntarget = ${boxes[1]}\nboxloss.${loss.call}(pred, target${keywords})`;
}

// -- the boxes as numbers -------------------------------------------------------------------------------------------------

const entries = [];
function makeNumbers() {
  for (const which of ["target", "pred"]) {
    for (let k = 0; k < 4; k++) {
      const input = $(`${which}-${k}`);
      entries.push({ which, k, input });
      input.addEventListener("change", () => enter(which, k, input));
    }
  }
  $("format").addEventListener("change", event => change({ format: event.target.value }));
  for (const place of [0, 1]) {
    entered($(`image-${place}`), "image", text => state.image.with(place, text).join(","), place);
  }
  for (const name of Object.keys(NUMBERS)) entered($(`number-${name}`), stateOf(name));
}

// A field whose text is an entry of the state, or with others makes one.
function entered(input, key, whole = text => text, place = undefined) {
  entries.push({ key, place, input });
  input.addEventListener("change", () => {
    const value = READ[key](whole(input.value));
    refused(input, value === undefined);
    if (value !== undefined) change({ [key]: value });
  });
}

function enter(which, k, input) {
  const value = number(-FURTHEST, FURTHEST)(input.value);
  refused(input, value === undefined);
  if (value === undefined) return;
  const format = FORMATS[state.format];
  const numbers = format.of(state[which]);
  numbers[k] = value;
  const box = format.box(numbers);
  change({ [which]: state.format === "xyxy" ? box : box.map(x => rounded(x, 15)) });
  fit();
}

function refused(input, isRefused) {
  input.setAttribute("aria-invalid", isRefused);
  const expected = `expected a number ${input.dataset.expected}`;
  const got = input.value ? `“${input.value}” is not taken` : "it is empty";
  if (isRefused) say(`${input.getAttribute("aria-label")}: ${expected}; ${got}.`, input.id);
  else if ($("notice").dataset.of === input.id) say("");
}

function drawNumbers() {
  const format = FORMATS[state.format];
  $("format").value = state.format;
  for (const { which, k, key, place, input } of entries) {
    if (which) {
      input.labels[0].textContent = format.labels[k];
      input.setAttribute("aria-label", `${TITLES[which]} ${format.labels[k]}`);
    }
    const value = which ? format.of(state[which])[k] : place === undefined ? state[key] : state[key][place];
    if (Number(input.value) !== value || input.value === "") {
      if (input === document.activeElement && input.value !== input.dataset.shown) continue; // somebody is typing
      input.value = plain(value);
    }
    input.dataset.shown = input.value;
    refused(input, false);
  }
}
