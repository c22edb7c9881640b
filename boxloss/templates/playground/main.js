// What holds the parts together: one state, one way to change it, one drawing per frame of the screen.

let dragging = false;
let scheduled = false;
let noted = 0;

const OF_NO_DESCENT = ["loss", "line", "show", "format"];

function change(changes) {
  Object.assign(state, limited(changes));
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
  noted = setTimeout(noteAddress, 300); // browsers refuse too many in a row
}

function noteAddress() {
  const hash = address();
  if (hash === (location.hash || "#")) return;
  try {
    history.replaceState(null, "", hash);
  } catch {
    // a page inside another may have no address of its own
  }
}

function say(text, of = "") {
  $("notice").textContent = text;
  $("notice").dataset.of = of;
  $("notice").hidden = !text;
}

function load() {
  const refused = readAddress(location.hash);
  const what = "Of this page’s address these could not be read, and are left at their defaults";
  const listed = refused.join(", ");
  say(listed && `${what}: ${listed.length > 200 ? `${listed.slice(0, 200)}…` : `${listed}.`}`);
  forget();
  fit();
}

// The clipboard may be refused; then the text is shown, to be copied by hand.
async function copy(text, button) {
  button.dataset.title ??= button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = button.dataset.title), 1500);
  } catch {
    say(text);
  }
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
$("copy-link").addEventListener("click", event => copy(location.href.split("#")[0] + address(), event.target));
$("copy-python").addEventListener("click", event => copy($("python").textContent, event.target));
for (const key of ["line", "show"]) $(key).addEventListener("change", event => change({ [key]: event.target.value }));
addEventListener("hashchange", load);
addEventListener("resize", schedule);
load();
draw();
// For the console, and tests.
window.playground = { state, change, draw, view: () => view, scene: () => scene, dragged: is => (dragging = is) };
