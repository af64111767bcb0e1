// Colours by what the tensors have in common. Roles have the same colours on every page; of the rest, most bytes come first.

const COLOURS = 10; // --c0 to --c9

// The first pattern that a name has. Experts come before attention and MLP, whose words their names hold as well.
const ROLES = [
  ["norm", /(^|[._])(norm\w*|ln|ln_\w+|\w*layer_?norm\w*|\w+_norm)(\.|$)/i],
  ["router", /router|gate\.(weight|bias|e_score_correction_bias)$|gate_weight/i],
  ["experts", /experts?(\.|_)/i],
  ["head", /(^|\.)(lm_head|head|output|score|classifier|v_head|value_head|qa_outputs|embed_out|cls)\./i],
  ["embedding", /emb(ed|edding|eddings)?([._]|$)|(^|\.)(wte|wpe)\./i],
  ["attention", /attn|attention|(^|\.)(q|k|v|o|qkv|kv)_(proj|a_proj|b_proj)|mixer/i],
  ["mlp", /mlp|feed_?forward|ffn|(gate|up|down|gate_up)_proj|(^|\.)(fc\d|wi|wo|dense)\w*\./i],
];
const ROLE_COLOURS = ["attention", "mlp", "experts", "embedding", "norm", "head", "router"];
const role = ({ name }) => ROLES.find(([, pattern]) => pattern.test(name))?.[0] ?? "other";

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

// Operations by name alone: their numbers differ from tensor to tensor.
const operationKey = (tensor) => tensor.operations.map((operation) => operation.replace(/[[(].*$/s, "")).join(", ") || "unchanged";

const COLOURINGS = { role, dtype: (tensor) => tensor.dtype, file: fileKey, operation: operationKey };

// The key of every tensor, and the colour of every key.
function paint(key) {
  const keys = new Map(report.tensors.map((tensor) => [tensor, key(tensor)]));
  const bytes = new Map();
  for (const [tensor, name] of keys) bytes.set(name, (bytes.get(name) ?? 0) + tensor.bytes);
  const sorted = [...bytes.keys()].sort((a, b) => bytes.get(b) - bytes.get(a));
  const place = (name, i) => (key === role ? ROLE_COLOURS.indexOf(name) : i);
  const colour = (at) => (at >= 0 && at < COLOURS ? `var(--c${at})` : "var(--c-other)");
  const colours = new Map(sorted.map((name, i) => [name, colour(place(name, i))]));
  return { bytes, colours, of: (tensor) => colours.get(keys.get(tensor)) };
}

function showLegend({ bytes, colours }) {
  const named = [...colours].slice(0, COLOURS).sort(([a], [b]) => (a < b ? -1 : 1));
  if (colours.size > COLOURS) named.push([`${colours.size - COLOURS} more`, "var(--c-other)"]);
  by("legend").replaceChildren(...named.map(([name, colour]) => {
    const item = element("li", "", { title: bytes.has(name) ? size(bytes.get(name)) : "" });
    const square = element("i", "");
    square.style.background = colour;
    item.append(square, name);
    return item;
  }));
}
