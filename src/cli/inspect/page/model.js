"use strict";
// Names come out of a checkpoint: they reach the page as text, never as markup.
const { source, command, version, report } = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function scaled(count, base, units) {
  let power = 0;
  while (power + 1 < units.length && count >= base ** (power + 1)) power++;
  return power ? `${(count / base ** power).toFixed(1)} ${units[power]}` : `${count}${units[0] && ` ${units[0]}`}`;
}
const size = (bytes) => scaled(bytes, 1000, ["bytes", "KB", "MB", "GB", "TB"]);
const amount = (parameters) => scaled(parameters, 1000, ["", "K", "M", "B", "T"]);
const elements = (tensor) => tensor.shape.reduce((product, length) => product * length, 1);

// The model as a tree of modules in the order of the model. A leaf is a tensor.

const DEPTH = 16; // a deeper name keeps its rest in one piece

function module(name, parent) {
  return { name, parent, path: parent?.parent ? `${parent.path}.${name}` : name, bytes: 0, parameters: 0, tensors: 0, children: new Map() };
}

// The nodes by the links that lead to them: `#module=PATH` or `#tensor=NAME`.
const places = new Map();
const place = (node) => `${node.tensor ? "tensor" : "module"}=${node.path}`;
const link = (node) => `#${encodeURIComponent(place(node)).replace("%3D", "=")}`;

function tree(tensors) {
  const root = { ...module("model", null), path: "" };
  for (const tensor of tensors) {
    const parts = tensor.name.split(".");
    const path = parts.slice(0, DEPTH - 1);
    const last = parts.length < DEPTH ? path.pop() : parts.slice(DEPTH - 1).join(".");
    let node = root;
    for (const name of path) {
      const key = `module ${name}`;
      if (!node.children.has(key)) add(node, key, module(name, node));
      node = node.children.get(key);
    }
    const leaf = { name: last, parent: node, path: tensor.name, bytes: tensor.bytes, parameters: elements(tensor), tensors: 1, tensor };
    add(node, `tensor ${last}`, leaf);
    for (; node; node = node.parent) {
      node.bytes += leaf.bytes;
      node.parameters += leaf.parameters;
      node.tensors += 1;
      node.first ??= tensor;
    }
  }
  return root;
}

function add(parent, key, node) {
  parent.children.set(key, node);
  places.set(place(node), node);
}

// In the order of the model; numbers by number, since some sources sort their names.
function children(node) {
  const all = [...node.children.values()];
  const isNumbered = all.every(({ name }) => /^\d+$/.test(name));
  return isNumbered ? all.sort((a, b) => a.name - b.name) : all;
}

function ancestors(node) {
  return node.parent ? [...ancestors(node.parent), node] : [node];
}
