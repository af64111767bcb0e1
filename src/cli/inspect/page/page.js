"use strict";
// Names come out of a checkpoint: they reach the page as text, never as markup.
const { source, report } = JSON.parse(document.getElementById("data").textContent);
const DEPTH = 16; // a deeper name keeps its rest in one piece
const COLOURS = ["#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#8dd3c7", "#ffed6f", "#fccde5", "#c7b299", "#9fb8ff"];
const OTHER = "#dddddd";
const LISTED = 200;
const by = (id) => document.getElementById(id);

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function size(bytes) {
  const unit = ["TB", "GB", "MB", "KB"].find((_, i) => bytes >= 1000 ** (4 - i));
  const power = { TB: 4, GB: 3, MB: 2, KB: 1 }[unit];
  return unit ? `${(bytes / 1000 ** power).toFixed(1)} ${unit}` : `${bytes} bytes`;
}

// The model as a tree of modules. A leaf is a tensor.

function tree(tensors) {
  const root = { name: "model", bytes: 0, children: new Map() };
  for (const tensor of tensors) {
    const parts = tensor.name.split(".");
    const path = parts.slice(0, DEPTH - 1);
    const last = parts.length < DEPTH ? path.pop() : parts.slice(DEPTH - 1).join(".");
    let module = root;
    module.bytes += tensor.bytes;
    for (const name of path) {
      const key = `module ${name}`;
      if (!module.children.has(key)) module.children.set(key, { name, bytes: 0, children: new Map(), parent: module });
      module = module.children.get(key);
      module.bytes += tensor.bytes;
    }
    module.children.set(`tensor ${last}`, { name: last, bytes: tensor.bytes, tensor, parent: module });
  }
  return root;
}

function ancestors(node) {
  return node.parent ? [...ancestors(node.parent), node] : [node];
}

// Squarified treemap (Bruls, Huizing, van Wijk 2000): a row takes the next node while that makes its worst node squarer.

function squarify(nodes, area) {
  const sorted = nodes.filter((node) => node.bytes > 0).sort((a, b) => b.bytes - a.bytes);
  const total = sorted.reduce((sum, node) => sum + node.bytes, 0);
  const scale = (area.width * area.height) / total;
  const placed = [];
  let row = [], sum = 0, rest = area;
  for (const node of sorted) {
    const side = Math.min(rest.width, rest.height);
    if (row.length && worst(row, node, sum + node.bytes, side, scale) > worst(row, row.at(-1), sum, side, scale)) {
      rest = place(row, sum * scale, rest, scale, placed);
      [row, sum] = [[], 0];
    }
    row.push(node);
    sum += node.bytes;
  }
  place(row, sum * scale, rest, scale, placed);
  return placed;
}

function worst(row, smallest, sum, side, scale) {
  const largest = (row[0] ?? smallest).bytes;
  const thickness = (sum * scale) / side;
  return Math.max((largest * scale) / thickness ** 2, thickness ** 2 / (smallest.bytes * scale));
}

function place(row, surface, area, scale, placed) {
  const isColumn = area.width >= area.height;
  const thickness = surface / (isColumn ? area.height : area.width);
  let { x, y } = area;
  for (const node of row) {
    const length = (node.bytes * scale) / thickness;
    const [width, height] = isColumn ? [thickness, length] : [length, thickness];
    placed.push([node, { x, y, width, height }]);
    isColumn ? (y += length) : (x += length);
  }
  return isColumn
    ? { ...area, x: area.x + thickness, width: Math.max(0, area.width - thickness) }
    : { ...area, y: area.y + thickness, height: Math.max(0, area.height - thickness) };
}

// What to draw: tensors, and modules too small to look into. A module whose parts have no room for a name has one itself.

const ROOM = 2000; // of a name, in square pixels

function tiles(node, area, isNamed = false, found = []) {
  const isSmall = area.width < 14 || area.height < 14;
  if (area.width < 1 || area.height < 1) return found;
  if (node.tensor || (isSmall && node !== shown)) {
    found.push({ node, area, isTile: true, text: isNamed ? "" : label(node, area) });
    return found;
  }
  const isCrowded = !isNamed && node !== shown && (area.width * area.height) / node.children.size < ROOM;
  const text = isCrowded ? label(node, area) : "";
  const parts = squarify([...node.children.values()], area);
  for (const [child, part] of parts) tiles(child, part, isNamed || text !== "", found);
  if (node !== shown) found.push({ node, area, isTile: false, text });
  return found;
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = "11px system-ui, sans-serif";

// The longest of the name's forms that fits; none may be cut.
function label(node, { width, height }) {
  const path = ancestors(node).slice(ancestors(shown).length).map((part) => part.name);
  const ends = [3, 2, 1].map((count) => path.slice(-count).join("."));
  const short = path.filter((part) => part !== "weight").at(-1) ?? "";
  const twoLines = node.tensor ? [`${path.slice(0, -2).join(".")}\n${path.slice(-2).join(".")}`] : [];
  const forms = [...twoLines, path.join("."), ...ends, short];
  const fits = (form) => form.split("\n").every((line, i, lines) =>
    pen.measureText(line).width <= width - 8 && lines.length * 13 <= height - 4);
  return forms.map((form) => form.trim()).find((form) => form && form !== "weight" && fits(form)) ?? "";
}

// Colours by what the tensors have in common, most bytes first.

const allFiles = report.tensors.flatMap((tensor) => tensor.stored.map((array) => array.file));
const folder = allFiles.reduce((a, b) => {
  let end = Math.min(a.length, b.length);
  while (!b.startsWith(a.slice(0, end))) end--;
  return a.slice(0, end);
}, allFiles[0] ?? "").replace(/[^/]*$/, "");

function fileKey(tensor) {
  const files = [...new Set(tensor.stored.map((array) => array.file.slice(folder.length)))];
  return files.length > 3 ? `${files.length} files, ${files[0]} …` : files.join(" + ") || "none";
}

const COLOURINGS = { dtype: (tensor) => tensor.dtype, file: fileKey };

function palette(key) {
  const bytes = new Map();
  for (const tensor of report.tensors) bytes.set(key(tensor), (bytes.get(key(tensor)) ?? 0) + tensor.bytes);
  const keys = [...bytes.keys()].sort((a, b) => bytes.get(b) - bytes.get(a));
  return new Map(keys.map((name, i) => [name, COLOURS[i] ?? OTHER]));
}

function showLegend(colours) {
  const named = [...colours].slice(0, COLOURS.length).sort(([a], [b]) => (a < b ? -1 : 1));
  if (colours.size > COLOURS.length) named.push([`${colours.size - COLOURS.length} more`, OTHER]);
  by("legend").replaceChildren(...named.map(([name, colour]) => {
    const item = element("li", "");
    const square = element("i", "");
    square.style.background = colour;
    item.append(square, name);
    return item;
  }));
}

// The page's state: the shown module, the chosen tensor, the words searched for.

const root = tree(report.tensors);
let shown = root, chosen = null, words = [], drawn = new Map();

const isHit = (tensor) => words.every((word) => [tensor.name, ...tensor.sources].some((name) => name.toLowerCase().includes(word)));
const leaves = (node) => (node.tensor ? [node.tensor] : [...node.children.values()].flatMap(leaves));

function draw() {
  const map = by("map");
  const key = COLOURINGS[by("colouring").value];
  const colours = palette(key);
  showLegend(colours);
  drawn = new Map();
  const { width, height } = map.getBoundingClientRect();
  const colour = (node) => colours.get(key(leaves(node)[0]));
  const found = tiles(shown, { x: 0, y: 0, width, height });
  map.replaceChildren(...found.map((place) => (place.isTile ? tile(place, colour) : frame(place))));
  showPath();
  mark();
}

function put(item, { x, y, width, height }) {
  Object.assign(item.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  return item;
}

function frame({ node, area, text }) {
  const item = element("div", "", { className: "frame" });
  if (text) item.append(element("span", text, { onclick: () => show(node) }));
  return put(item, area);
}

function tile({ node, area, text }, colour) {
  const path = ancestors(node).slice(1).map((part) => part.name).join(".");
  const item = element("button", "", { className: "tile", title: `${path} (${size(node.bytes)})` });
  if (text) item.append(element("span", text));
  item.style.background = colour(node);
  item.onclick = () => (node.tensor ? choose(node.tensor) : show(node));
  drawn.set(item, node);
  return put(item, area);
}

function showPath() {
  const steps = ancestors(shown).map((node) => element("button", node.name, { onclick: () => show(node) }));
  by("path").replaceChildren(...steps.flatMap((step, i) => (i ? [" › ", step] : [step])), ` ${size(shown.bytes)}`);
}

function mark() {
  for (const [item, node] of drawn) {
    item.classList.toggle("missed", words.length > 0 && !leaves(node).some(isHit));
    item.classList.toggle("chosen", chosen !== null && node.tensor === chosen);
  }
}

function show(node) {
  shown = node;
  draw();
  if (!chosen) about();
}

function choose(tensor) {
  chosen = tensor;
  const isDrawn = [...drawn.values()].some((node) => node.tensor === tensor);
  if (!isDrawn) shown = nodeOf(root, tensor).parent;
  isDrawn ? mark() : draw();
  provenance(tensor);
}

function nodeOf(node, tensor) {
  if (node.tensor) return node.tensor === tensor ? node : null;
  for (const child of node.children.values()) {
    const found = nodeOf(child, tensor);
    if (found) return found;
  }
  return null;
}

// The words beside the map.

function search() {
  words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const hits = words.length ? report.tensors.filter(isHit) : [];
  const bytes = hits.reduce((sum, tensor) => sum + tensor.bytes, 0);
  by("count").textContent = words.length ? `${hits.length} ${hits.length === 1 ? "tensor" : "tensors"}, ${size(bytes)}` : "";
  by("found").replaceChildren(...hits.slice(0, LISTED).map((tensor) => {
    const item = element("li", "");
    item.append(element("button", tensor.name, { onclick: () => choose(tensor) }));
    return item;
  }));
  mark();
}

function list(pairs) {
  const all = element("dl", "");
  for (const [term, text] of pairs) all.append(element("dt", term), element("dd", text));
  return all;
}

function provenance(tensor) {
  const computed = tensor.computed.slice(0, LISTED).flatMap(({ formula, law, inputs }) => [
    ["formula", formula],
    ["law", law],
    ...inputs.map((input) => ["input", inputText(input)]),
  ]);
  const stored = tensor.stored.slice(0, LISTED).map(({ file, offset, item }) =>
    ["bytes in", offset === null ? `${file} in ${item.start}..${item.end}` : `${file} from ${offset}`]);
  const more = tensor.stored.length - stored.length;
  by("details").replaceChildren(element("h2", tensor.name), list([
    ["dtype", tensor.dtype],
    ["shape", `[${tensor.shape.join(", ")}]`],
    ["size", `${size(tensor.bytes)} (${tensor.bytes} bytes)`],
    ...(tensor.file === null ? [] : [["shown in", `${tensor.file} ${tensor.start}..${tensor.start + tensor.bytes}`]]),
    ...tensor.sources.map((name) => ["source", name]),
    ...tensor.operations.map((operation) => ["operation", operation]),
    ...computed,
    ...stored,
    ...(more > 0 ? [["", `and ${more} more`]] : []),
  ]));
}

// An input of a formula: its name there, type, shape, operations and files.
function inputText({ name, dtype, shape, operations, stored }) {
  const files = [...new Set(stored.map(({ file, offset }) => (offset === null ? file : `${file} from ${offset}`)))];
  const more = files.length > 3 ? ` and ${files.length - 3} more` : "";
  const steps = operations.length ? ` ${operations.join(", ")}` : "";
  return `${name}: ${dtype} [${shape.join(", ")}]${steps} of ${files.slice(0, 3).join(", ")}${more}`;
}

function about() {
  by("details").replaceChildren(list([
    ["system", `${report.system} (${report.evidence})`],
    ["family", report.family],
    ...report.files.slice(0, LISTED).map((file) => ["file", `${file.path} (${size(file.size)})`]),
    ...report.tied.map((tied) => ["tied", `${tied.name} is ${tied.to}`]),
    ...report.dropped.slice(0, LISTED).map((dropped) => ["left out", `${dropped.name}: ${dropped.why}`]),
    ...report.notes.filter((note) => note.is_warning).map((note) => ["warning", note.text]),
  ]));
}

document.title = `${source}: ckptfs inspect`;
by("source").textContent = source;
by("summary").textContent = `${report.tensors.length} tensors, ${report.parameters.toLocaleString("en")} parameters, ${size(report.bytes)}`;
by("search").oninput = search;
by("colouring").onchange = draw;
new ResizeObserver(() => requestAnimationFrame(draw)).observe(by("map"));
about();
