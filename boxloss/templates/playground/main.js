// What holds the parts together: one state, one way to change it, one drawing per frame of the screen.

let dragging = false;
let scheduled = false;
let noted = 0;

const OF_NO_DESCENT = ["loss", "line", "show", "format"];

function change(changes) {
  Object.assign(state, changes);
  if (Object.keys(changes).some(key => !OF_NO_DESCENT.includes(key))) forget();
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  const chosen = drawTable();
  drawStage(chosen.g);
  drawChosen(chosen);
  drawNumbers();
  drawAlong();
  drawLandscape();
  drawDescent();
  clearTimeout(noted);
  noted = setTimeout(noteAddress, dragging ? 300 : 0); // browsers refuse too many in a row
}

function noteAddress() {
  const hash = address();
  if (hash !== location.hash && !(hash === "#" && !location.hash)) history.replaceState(null, "", hash);
}

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function load() {
  const refused = readAddress(location.hash);
  const what = "Of this page’s address these could not be read, and are left at their defaults";
  say(refused.length ? `${what}: ${refused.join(", ")}.` : "");
  forget();
  fit();
}

// The clipboard may be refused to a page from a file; then what is to be copied is selected.
async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    prompt("Copy this:", text);
  }
  setTimeout(() => (button.textContent = before), 1500);
}

makeStage();
makeTable();
makeNumbers();
makeLandscape();
makeDescent();
for (const button of document.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => {
    change(structuredClone(PRESETS[button.dataset.preset]));
    fit();
  });
}
$("fit-boxes").addEventListener("click", () => fit());
$("fit-image").addEventListener("click", () => fit(true));
$("copy-link").addEventListener("click", event => {
  noteAddress();
  copy(location.href, event.target);
});
$("copy-python").addEventListener("click", event => copy($("python").textContent, event.target));
for (const key of ["line", "show"]) $(key).addEventListener("change", event => change({ [key]: event.target.value }));
addEventListener("hashchange", load);
addEventListener("resize", schedule);
load();
draw();
window.playground = { state, change, draw, view: () => view, dragged: is => (dragging = is) }; // for the console, and tests
