// The page's state: the shown module and the chosen tensor, which the address holds, and the words searched for.

const LISTED = 200;
const SEEN = 6; // pixels
const FEW = 5; // tensors that a link to one of them shows it among
const root = tree(report.tensors);
let shown = root, chosen = null, words = [], hits = new Set(), drawn = [];

function draw() {
  const map = by("map");
  const colours = paint(COLOURINGS[by("colouring").value]);
  showLegend(colours);
  const { width, height } = map.getBoundingClientRect();
  const { places: found } = draft(shown, { x: 0, y: 0, width, height }, shown);
  drawn = [];
  map.replaceChildren(...found.map((place) => (place.isTile ? tile(place, colours) : frame(place))));
  if (drawn.length) drawn[0].item.tabIndex = 0;
  mark();
}

function put(item, { x, y, width, height }) {
  Object.assign(item.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  return item;
}

function frame({ node, area, text }) {
  const item = element("div", "", { className: "frame" });
  if (text) item.append(element("a", text, { href: link(node), tabIndex: -1, title: title(node) }));
  return put(item, area);
}

const title = (node) => `${node.path} (${size(node.bytes)})`;

function tile({ node, area, text }, colours) {
  const item = element("button", "", { className: "tile", title: title(node), tabIndex: -1 });
  item.setAttribute("aria-label", title(node));
  if (text) item.append(element("span", text));
  item.style.background = colours.of(node.tensor ?? node.first);
  item.onclick = () => go(node);
  drawn.push({ item, node, isSeen: Math.min(area.width, area.height) >= SEEN });
  return put(item, area);
}

function mark() {
  for (const { item, node } of drawn) {
    item.classList.toggle("missed", words.length > 0 && !hits.has(node));
    item.classList.toggle("chosen", chosen !== null && node === chosen);
  }
}

// Ways through the page. The address says where it is, so that Back works and a link can be shared.

function go(node) {
  location.hash = link(node);
}

function arrive() {
  const node = places.get(decoded(location.hash.slice(1))) ?? root;
  chosen = node.tensor ? node : null;
  if (!chosen) shown = node;
  else if (!drawn.some((each) => each.node === node && each.isSeen)) shown = ancestors(node).findLast((each) => each.tensors >= FEW) ?? root;
  draw();
  showPath();
  showDetails();
  showModules();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function showPath() {
  const steps = ancestors(shown).map((node) => element("a", node.name, { href: link(node) }));
  by("path").replaceChildren(...steps.flatMap((step, i) => (i ? [" › ", step] : [step])), ` ${size(shown.bytes)}`);
}

by("map").onkeydown = (event) => {
  const at = drawn.findIndex(({ item }) => item === document.activeElement);
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step) focusTile(Math.min(Math.max(at + step, 0), drawn.length - 1));
  else if (event.key === "Backspace" && shown.parent) go(shown.parent);
  else return;
  event.preventDefault();
};

function focusTile(at) {
  for (const { item } of drawn) item.tabIndex = -1;
  drawn[at].item.tabIndex = 0;
  drawn[at].item.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target === by("search")) return;
  by("search").focus();
  event.preventDefault();
});

// Search: the tensors that have all words in their name or in a name of their sources.

function search() {
  words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length ? report.tensors.filter(isHit) : [];
  hits = new Set();
  for (const tensor of found) {
    for (let node = places.get(`tensor=${tensor.name}`); node; node = node.parent) hits.add(node);
  }
  by("count").textContent = words.length ? summary(found) : "";
  by("found").replaceChildren(...found.slice(0, LISTED).map((tensor) => {
    const item = element("li", "");
    item.append(element("a", tensor.name, { href: link(places.get(`tensor=${tensor.name}`)) }));
    return item;
  }));
  mark();
}

const isHit = (tensor) => words.every((word) => [tensor.name, ...tensor.sources].some((name) => name.toLowerCase().includes(word)));

function summary(found) {
  if (!found.length) return `No tensor has “${words.join(" ")}” in its name or in those of its sources.`;
  const bytes = found.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const listed = found.length > LISTED ? `; the first ${LISTED} are listed` : "";
  return `${found.length} ${found.length === 1 ? "tensor" : "tensors"}, ${size(bytes)}${listed}`;
}

// The words beside the map.

function list(pairs) {
  const all = element("dl", "");
  for (const [term, text] of pairs) all.append(element("dt", term), element("dd", text));
  return all;
}

function fold(name, pairs, isOpen = pairs.length <= 8) {
  if (!pairs.length) return [];
  const item = element("details", "", { open: isOpen });
  const more = pairs.length > LISTED ? [["", `and ${pairs.length - LISTED} more`]] : [];
  item.append(element("summary", `${name} (${pairs.length})`), list([...pairs.slice(0, LISTED), ...more]));
  return [item];
}

function showDetails() {
  if (!chosen) return by("details").replaceChildren();
  const { tensor } = chosen;
  const stored = tensor.stored.map(({ file, offset, item }) =>
    ["bytes in", offset === null ? `${file} in ${item.start}..${item.end}` : `${file} from ${offset}`]);
  by("details").replaceChildren(element("h2", tensor.name), list([
    ["dtype", tensor.dtype],
    ["shape", `[${tensor.shape.join(", ")}], ${amount(elements(tensor))} parameters`],
    ["size", `${size(tensor.bytes)} (${tensor.bytes} bytes)`],
    ["role", role(tensor)],
    ...(tensor.file === null ? [] : [["shown in", `${tensor.file} ${tensor.start}..${tensor.start + tensor.bytes}`]]),
    ...tensor.sources.map((name) => ["source", name]),
    ...tensor.operations.map((operation) => ["operation", operation]),
    ...tensor.computed.slice(0, LISTED).flatMap(({ formula, law, inputs }) => [
      ["formula", formula],
      ["law", law],
      ...inputs.map((input) => ["input", inputText(input)]),
    ]),
  ]), ...fold("Stored bytes", stored));
}

// An input of a formula: its name there, type, shape, operations and files.
function inputText({ name, dtype, shape, operations, stored }) {
  const files = [...new Set(stored.map(({ file, offset }) => (offset === null ? file : `${file} from ${offset}`)))];
  const more = files.length > 3 ? ` and ${files.length - 3} more` : "";
  const steps = operations.length ? ` ${operations.join(", ")}` : "";
  return `${name}: ${dtype} [${shape.join(", ")}]${steps} of ${files.slice(0, 3).join(", ")}${more}`;
}

function showModules() {
  const table = element("table", "");
  const head = element("tr", "");
  head.append(...["module", "tensors", "parameters", "size"].map((text) => element("th", text)));
  table.append(head, ...children(shown).slice(0, LISTED).map(row));
  by("modules").replaceChildren(element("h2", shown === root ? "Modules" : shown.path), table);
}

function row(node) {
  const line = element("tr", "");
  const name = element("td", "");
  name.append(element("a", node.name, { href: link(node) }));
  line.append(name, ...[node.tensors, amount(node.parameters), size(node.bytes)].map((text) => element("td", text)));
  return line;
}

function showAbout() {
  by("about").replaceChildren(
    list([["system", `${report.system} (${report.evidence})`], ["family", report.family]]),
    ...fold("Warnings", report.notes.filter((note) => note.is_warning).map((note) => ["", note.text]), true),
    ...fold("Files", report.files.map((file) => [size(file.size), file.path])),
    ...fold("Tied", report.tied.map((tied) => [tied.name, `is ${tied.to}`])),
    ...fold("Left out", report.dropped.map((dropped) => [dropped.name, dropped.why])),
  );
}

document.title = `${source}: ckptfs inspect`;
by("source").textContent = source;
by("summary").textContent = `${report.tensors.length} tensors, ${amount(report.parameters)} parameters, ${size(report.bytes)}`;
by("made").textContent = `ckptfs ${version}: ${command}`;
by("search").oninput = search;
by("colouring").onchange = draw;
addEventListener("hashchange", arrive);
new ResizeObserver(() => requestAnimationFrame(draw)).observe(by("map"));
showAbout();
arrive();
