// What is shown: two boxes, the image, which losses; and its way into the page's address and back.

const FORMATS = {
  xyxy: { labels: ["x1", "y1", "x2", "y2"], of: box => [...box], box: numbers => [...numbers] },
  xywh: {
    labels: ["x1", "y1", "w", "h"],
    of: ([x1, y1, x2, y2]) => [x1, y1, x2 - x1, y2 - y1],
    box: ([x, y, w, h]) => [x, y, x + w, y + h],
  },
  cxcywh: {
    labels: ["cx", "cy", "w", "h"],
    of: ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
    box: ([x, y, w, h]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2],
  },
};
const LINES = { x: "x", y: "y", w: "width", h: "height" };
const SHOWN = { value: "loss", slope: "slope" };

const byName = new Map(LOSSES.map(loss => [loss.name, loss]));
const stateOf = name => (name === IMAGE ? "image" : `of.${name}`); // what a loss asks for, beside the page's own

function comparedAtFirst() {
  const names = LOSSES.map(loss => loss.name);
  const known = names.filter(name => Object.hasOwn(COLORS, name));
  return known.length && names.length > 8 ? known : names.slice(0, 8);
}

const start = {
  ...PRESETS.overlapping,
  image: [640, 480],
  format: "xyxy",
  loss: byName.has("giou") ? "giou" : LOSSES[0].name,
  compare: comparedAtFirst(),
  line: "x",
  show: "value",
  step: 0.03,
  momentum: 0,
  steps: 300,
  fall: true,
  ...Object.fromEntries(Object.entries(NUMBERS).map(([name, asked]) => [stateOf(name), asked.value])),
};
const state = structuredClone(start);

// Each entry: whether a text is a value of it, and which. undefined where it is none.
const number = (low, high, whole = false) => text => {
  const plain = text.trim().replace("−", "-");
  const value = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
  return value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : undefined;
};
const numbers = (count, low, high) => text => {
  const found = text.split(",").map(number(low, high));
  return found.length === count && !found.includes(undefined) ? found : undefined;
};
const one = names => text => (names.includes(text) ? text : undefined);
const READ = {
  pred: numbers(4, -FURTHEST, FURTHEST),
  target: numbers(4, -FURTHEST, FURTHEST),
  image: numbers(2, 1e-9, FURTHEST),
  format: one(Object.keys(FORMATS)),
  loss: one([...byName.keys()]),
  compare: text => {
    const names = text.split(" ").filter(Boolean);
    return names.every(name => byName.has(name)) ? [...new Set(names)] : undefined;
  },
  line: one(Object.keys(LINES)),
  show: one(Object.keys(SHOWN)),
  step: number(0, 1000),
  momentum: number(0, 0.9999),
  steps: number(1, 2000, true),
  fall: text => (text === "yes" ? true : text === "no" ? false : undefined),
  ...Object.fromEntries(Object.entries(NUMBERS).map(([name, { low, high }]) => [stateOf(name), number(low, high)])),
};

function written(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? value.join(typeof value[0] === "string" ? " " : ",") : String(value);
}

// What a change may be: no box or image leaves what an address can say.
const within = (low, high) => x => Math.min(Math.max(x, low), high);
const LIMITS = { pred: within(-FURTHEST, FURTHEST), target: within(-FURTHEST, FURTHEST), image: within(1e-9, FURTHEST) };
const limited = changes =>
  Object.fromEntries(Object.entries(changes).map(([key, value]) => [key, LIMITS[key] ? value.map(LIMITS[key]) : value]));

// What differs from the start, as the address's part behind #.
function address() {
  const entries = Object.keys(READ).filter(key => written(state[key]) !== written(start[key]));
  return "#" + new URLSearchParams(entries.map(key => [key, written(state[key])])).toString().replaceAll("%2C", ",");
}

// The state of an address; what can't be read is named, and stays as at the start.
function readAddress(hash) {
  const refused = [];
  Object.assign(state, structuredClone(start));
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  if (given.has("preset")) {
    const preset = Object.hasOwn(PRESETS, given.get("preset")) ? PRESETS[given.get("preset")] : undefined;
    if (preset) Object.assign(state, structuredClone(preset));
    else refused.push(`preset=${given.get("preset")}`);
  }
  for (const [key, text] of given) {
    if (key === "preset") continue;
    const value = Object.hasOwn(READ, key) ? READ[key](text) : undefined;
    if (value === undefined) refused.push(`${key}=${text}`);
    else state[key] = value;
  }
  return refused;
}

// -- values of losses --------------------------------------------------------------------------------------------------

// The value of a loss of any prediction with this target; its gradient by the prediction goes into g.
function evaluator(loss, target) {
  const told = loss.inputs.flatMap(name => state[stateOf(name)]);
  const x = Float64Array.of(0, 0, 0, 0, ...target, ...told);
  return (pred, g) => {
    x.set(pred);
    return loss.f(x, g);
  };
}

const norm = g => Math.hypot(...g);
const unused = new Float64Array(4);
const iouOf = target => {
  const value = evaluator(IOU, target);
  return pred => 1 - value(pred, unused);
};

// -- numbers for people -------------------------------------------------------------------------------------------------

function short(x, digits = 4) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  const text = size >= 1e6 || size < 1e-4 ? size.toExponential(digits - 1) : size.toPrecision(digits);
  return (x < 0 ? "−" : "") + text;
}

// Without the tail of digits that a rounded sum of coordinates leaves.
const rounded = (x, digits = 12) => Number(x.toPrecision(digits));
const plain = x => String(rounded(x));
