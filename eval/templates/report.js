"use strict";
// The page's only script: sorts tables, draws curves of single classes, and runs the gallery. Texts of the data set are
// set as text (textContent, attributes), never as markup.
const data = JSON.parse(document.getElementById("report-data").textContent);
const PAGE = 24;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, text = null, space = null) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

// Tables

function sortTable(table, column, kind, header) {
  const rising = header.getAttribute("aria-sort") === "descending" || (kind === "text" && header.getAttribute("aria-sort") === "none");
  for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent;
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (kind === "text") return (rising ? 1 : -1) * a.localeCompare(b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what was not measured comes last
    return (rising ? 1 : -1) * (a - b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sort")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = header.querySelector("button");
    if (button) button.addEventListener("click", () => sortTable(table, column, button.dataset.kind, header));
  });
}

// Curves

function drawClassCurve() {
  const chart = document.querySelector("#pr svg");
  chart.querySelectorAll(".class").forEach((old) => old.remove());
  const chosen = $("curve-class").value;
  if (chosen === "") return;
  const [left, top, width, height] = data.frame;
  for (const [iou, style] of [["0.50", "line class"], ["0.75", "line class strict"]]) {
    const points = data.curves[iou][Number(chosen)].map((p, k) => `${(left + (k / 100) * width).toFixed(1)},${(top + (1 - p) * height).toFixed(1)}`);
    chart.append(element("polyline", { class: style, points: points.join(" ") }, null, SVG));
  }
}

data.classes.forEach((name, k) => {
  if (data.curves["0.50"][k]) $("curve-class").append(element("option", { value: k }, name));
});
$("curve-class").addEventListener("change", drawClassCurve);

// Gallery

const FOUND = -1;
const IGNORED = -2;
const pointing = [data.kinds.indexOf("classification"), data.kinds.indexOf("localisation")];

// What is on an image at a threshold: detections [position, row, status word], objects [position, row, status word].
function read(image, threshold) {
  const found = [];
  const pointed = new Set();
  image.found.forEach((row, i) => {
    if (row[5] < threshold) return;
    const status = row[6];
    found.push([i, row, status === FOUND ? "found" : status === IGNORED ? "ignored" : data.kinds[status]]);
    if (pointing.includes(status)) pointed.add(row[7]);
  });
  const truth = image.truth.map((row, i) => {
    if (row[5]) return [i, row, "crowd"];
    if (row[6] >= 0 && row[6] >= threshold) return [i, row, "found"];
    return [i, row, pointed.has(i) ? "pointed at" : "missed"];
  });
  return { found, truth };
}

function choose(image, settings) {
  const seen = read(image, settings.threshold);
  const wrong = (item) => !["found", "ignored", "crowd", "pointed at"].includes(item[2]);
  const ofClass = ([, row, word]) => {
    if (settings.class === null || row[4] === settings.class) return true;
    return row.length > 7 && word === "classification" && row[7] >= 0 && image.truth[row[7]][4] === settings.class;
  };
  const truth = seen.truth.filter(ofClass);
  let found = seen.found.filter(ofClass);
  const errors = [...found, ...truth].filter(wrong);
  let shown = settings.class === null || truth.length + found.length > 0;
  if (settings.kind === "error") shown = errors.length > 0;
  else if (settings.kind === "none") shown = shown && errors.length === 0;
  else if (settings.kind !== "") {
    shown = errors.some((item) => item[2] === settings.kind);
    found = found.filter((item) => item[2] === settings.kind);
  }
  return { image, shown, errors, truth: settings.truth ? truth : [], found: settings.found ? found : [] };
}

function words(image, item, isTruth) {
  const [, row, word] = item;
  const name = data.classes[row[4]];
  if (isTruth) return `${name} (object): ${word}`;
  const about = row[7] >= 0 ? `; IoU ${row[8].toFixed(2)} with ${data.classes[image.truth[row[7]][4]]}` : "";
  return `${name} ${row[5].toFixed(2)}: ${word === "found" ? "right" : word}${about}`;
}

function picture(view, large) {
  const { image } = view;
  const svg = element("svg", { class: "picture", viewBox: `0 0 ${image.width} ${image.height}`, role: "img", "aria-label": image.name }, null, SVG);
  if (image.thumbnail) {
    svg.append(element("image", { href: image.thumbnail, width: image.width, height: image.height, preserveAspectRatio: "none" }, null, SVG));
  }
  const box = (item, style, isTruth) => {
    const [, row] = item;
    const rect = element("rect", { class: style, x: row[0], y: row[1], width: row[2], height: row[3] }, null, SVG);
    rect.append(element("title", {}, words(image, item, isTruth), SVG));
    svg.append(rect);
    if (large && !isTruth) {
      const size = Math.max(image.width / 70, 1);
      svg.append(element("text", { x: row[0], y: Math.max(row[1] - size / 3, size), "font-size": size }, `${data.classes[row[4]]} ${row[5].toFixed(2)}`, SVG));
    }
  };
  for (const item of view.truth) box(item, `gt ${item[2] === "pointed at" ? "missed" : item[2]}`, true);
  for (const item of view.found) box(item, item[2] === "found" ? "det found" : item[2] === "ignored" ? "det ignored" : `det k-${item[2]}`, false);
  return svg;
}

function openViewer(view) {
  $("viewer-title").textContent = view.image.name;
  $("viewer-picture").replaceChildren(picture(view, true));
  const table = $("viewer-table");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const name of ["what", "class", "score", "status", "IoU"]) head.append(element("th", { scope: "col" }, name));
  const body = table.createTBody();
  const add = (values) => {
    const row = body.insertRow();
    for (const value of values) row.append(element("td", {}, value));
  };
  for (const [, row, word] of view.truth) add(["object", data.classes[row[4]], "", word, ""]);
  for (const [, row, word] of view.found) {
    add(["detection", data.classes[row[4]], row[5].toFixed(3), word === "found" ? "right" : word, row[7] >= 0 ? row[8].toFixed(2) : ""]);
  }
  $("viewer").showModal();
}

function card(view) {
  const made = element("button", { type: "button", class: "card" });
  made.append(picture(view, false), element("span", { class: "caption", title: view.image.name }, view.image.name));
  const tally = new Map();
  for (const [, , word] of view.errors) tally.set(word, (tally.get(word) || 0) + 1);
  const text = [...tally].map(([word, n]) => `${n} ${word}`).join(", ") || "no error";
  made.append(element("span", { class: "words" }, text));
  made.addEventListener("click", () => openViewer(view));
  return made;
}

let shownCards = PAGE;

function drawGallery() {
  const settings = {
    threshold: Number($("threshold").value),
    class: $("class").value === "" ? null : Number($("class").value),
    kind: $("kind").value,
    truth: $("show-truth").checked,
    found: $("show-found").checked,
  };
  $("threshold-value").textContent = settings.threshold.toFixed(2);
  const views = data.images.map((image) => choose(image, settings)).filter((view) => view.shown);
  const now = views.slice(0, shownCards);
  $("cards").replaceChildren(...now.map(card));
  const count = (key) => now.reduce((sum, view) => sum + view[key].length, 0);
  $("count").textContent = `${now.length} of ${views.length} images that fit; on them ${count("found")} detections and ${count("truth")} objects are drawn`;
  $("more").hidden = views.length <= shownCards;
}

function redraw() {
  shownCards = PAGE;
  drawGallery();
}

// What one detector finds and the other misses

for (const pair of data.differences) {
  pair.B.thumbnail = pair.A.thumbnail;
  const made = element("div", { class: "two" });
  const sides = element("div", { class: "sides" });
  for (const side of ["A", "B"]) {
    const settings = { threshold: pair[side].confidence, class: null, kind: "", truth: true, found: true };
    const view = choose(pair[side], settings);
    const button = element("button", { type: "button", class: "card", "aria-label": `${side}: ${pair[side].name}` });
    button.append(picture(view, false));
    button.addEventListener("click", () => openViewer(view));
    sides.append(button);
  }
  made.append(sides, element("span", { class: "caption", title: pair.A.name }, pair.A.name));
  made.append(element("span", { class: "words" }, `only A finds ${pair.only_A}, only B finds ${pair.only_B}`));
  $("differences").append(made);
}

data.classes.forEach((name, k) => $("class").append(element("option", { value: k }, name)));
let queued = false;
$("threshold").addEventListener("input", () => {
  if (queued) return;
  queued = true; // at most one drawing per frame, however fast the slider moves
  requestAnimationFrame(() => {
    queued = false;
    redraw();
  });
});
for (const id of ["class", "kind", "show-truth", "show-found"]) $(id).addEventListener("change", redraw);
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => {
  shownCards += PAGE;
  drawGallery();
});
drawGallery();
document.documentElement.dataset.ready = "yes";
