// Strips (Bederson, Shneiderman, Wattenberg 2002): nodes keep their order, left to right and row by row; a row takes the next node
// while that makes its nodes squarer on average.

function strips(nodes, area) {
  const visible = nodes.filter((node) => node.bytes > 0);
  const scale = (area.width * area.height) / visible.reduce((sum, node) => sum + node.bytes, 0);
  const placed = [];
  let y = area.y, row = [];
  for (const node of visible) {
    if (row.length && stretch([...row, node], area.width, scale) > stretch(row, area.width, scale)) {
      y = fill(row, { ...area, y }, scale, placed);
      row = [];
    }
    row.push(node);
  }
  if (row.length) fill(row, { ...area, y }, scale, placed);
  return placed;
}

const MOST = 64; // nodes of a row whose shapes are compared; a longer one is full

// Average of length to width of a row's nodes.
function stretch(row, width, scale) {
  if (row.length > MOST) return Infinity;
  const height = (row.reduce((sum, node) => sum + node.bytes, 0) * scale) / width;
  const ratios = row.map((node) => {
    const length = (node.bytes * scale) / height;
    return Math.max(length / height, height / length);
  });
  return ratios.reduce((sum, ratio) => sum + ratio, 0) / row.length;
}

function fill(row, { x, y, width }, scale, placed) {
  const height = (row.reduce((sum, node) => sum + node.bytes, 0) * scale) / width;
  for (const node of row) {
    const length = (node.bytes * scale) / height;
    placed.push([node, { x, y, width: length, height }]);
    x += length;
  }
  return y + height;
}

// Tiles and frames to draw: tensors, and modules too small to look into. Where most of a module's area would lack a name, the module
// has one in place of its parts.

const NAMED = 0.6; // of a module's area

function draft(node, area, shown) {
  if (area.width < 0.5 || area.height < 0.5) return { places: [], named: 0 };
  const surface = area.width * area.height;
  const isSmall = area.width < 14 || area.height < 14;
  if (node.tensor || (isSmall && node !== shown)) {
    const text = label(node, area, shown);
    return { places: [{ node, area, isTile: true, text }], named: text ? surface : 0 };
  }
  const parts = strips(children(node), area).map(([child, part]) => draft(child, part, shown));
  const places = parts.flatMap((part) => part.places);
  const named = parts.reduce((sum, part) => sum + part.named, 0);
  if (node === shown) return { places, named };
  const text = named < NAMED * surface ? label(node, area, shown) : "";
  if (text) places.forEach((place) => (place.text = ""));
  return { places: [...places, { node, area, isTile: false, text }], named: text ? surface : named };
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = "11px system-ui, sans-serif";

// The longest of the name's forms that fits; none may be cut, nor lack the number of its layer or expert.
function label(node, { width, height }, shown) {
  const path = ancestors(node).slice(ancestors(shown).length).map((part) => part.name);
  const ends = [3, 2, 1].map((count) => path.slice(-count).join("."));
  const short = path.filter((part) => part !== "weight").at(-1) ?? "";
  const twoLines = node.tensor ? [`${path.slice(0, -2).join(".")}\n${path.slice(-2).join(".")}`] : [];
  const forms = [...twoLines, path.join("."), ...ends, short];
  const fits = (form) => form.split("\n").every((line, i, lines) =>
    pen.measureText(line).width <= width - 8 && lines.length * 13 <= height - 4);
  const number = path.findLast((part) => /^\d+$/.test(part));
  const isWhole = (form) => form !== "" && form !== "weight" && (!number || form.split(/[.\n]/).includes(number));
  return forms.map((form) => form.trim()).find((form) => isWhole(form) && fits(form)) ?? "";
}
