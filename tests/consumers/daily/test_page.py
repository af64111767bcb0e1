"""The page of `ckptfs inspect --html` in a real browser: a model of 1,000 tensors, and names that want to be markup."""
import json
import os
import re
import shutil
import struct
import subprocess

import pytest

from mounts import BINARY
from processes import CONSUMERS, python

LAYERS, HIDDEN, INNER, VOCABULARY = 111, 1024, 2816, 32000
HOSTILE = "model.layers.0.</script><img src=x onerror=alert(1)>.weight"


def shapes():
    """The 1,002 tensors of a Llama with 111 layers."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for part in "qkvo":
            yield f"{prefix}.self_attn.{part}_proj.weight", [HIDDEN, HIDDEN]
        yield f"{prefix}.mlp.gate_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}.mlp.up_proj.weight", [INNER, HIDDEN]
        yield f"{prefix}.mlp.down_proj.weight", [HIDDEN, INNER]
        yield f"{prefix}.input_layernorm.weight", [HIDDEN]
        yield f"{prefix}.post_attention_layernorm.weight", [HIDDEN]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def dtype(name):
    return "F32" if "norm" in name else "F16" if name == "lm_head.weight" else "BF16"


def write_sparse(path, tensors):
    """A safetensors file whose weights are a hole."""
    header, end = {}, 0
    for name, shape in tensors:
        start, end = end, end + shape[0] * (shape[1] if shape[1:] else 1) * (4 if dtype(name) == "F32" else 2)
        header[name] = {"dtype": dtype(name), "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tensors, parts = list(shapes()), 4
    for part in range(parts):
        write_sparse(folder / f"model-{part + 1:05}-of-{parts:05}.safetensors", tensors[part * 251 : (part + 1) * 251])
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 8, "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def look(model, tmp_path):
    if not shutil.which("chromium"):
        if os.environ.get("CKPTFS_OFFLINE"):
            pytest.skip("NOT TESTED: no program chromium")
        raise FileNotFoundError("no program chromium: run tests/run consumers")
    page = tmp_path / "page.html"
    subprocess.run([BINARY, "inspect", model, "--html", page], check=True, timeout=60, stdout=subprocess.DEVNULL)
    command = [python("browser"), CONSUMERS / "daily" / "look_at_page.py", page, tmp_path]
    return json.loads(subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE).stdout)


@pytest.fixture(scope="module")
def seen(model, tmp_path_factory):
    return look(model, tmp_path_factory.mktemp("screenshots"))


def bytes_of(tile):
    number, unit = tile["title"].rsplit("(", 1)[1].rstrip(")").split()
    return float(number) * {"bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


def assert_apart(tiles, area):
    """No tile lies on another or outside of the map, beyond the rounding of a pixel's fraction."""
    for i, a in enumerate(tiles):
        assert a["x"] > -0.1 and a["y"] > -0.1, a
        assert a["x"] + a["width"] < area["width"] + 0.1 and a["y"] + a["height"] < area["height"] + 0.1, a
        for b in tiles[:i]:
            width = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            height = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            assert width < 0.1 or height < 0.1, (a, b)


def test_the_page_asks_no_network_and_makes_no_error(seen):
    assert [url.split(":")[0] for url in seen["requests"]] == ["file"]
    assert seen["errors"] == []
    print(f"drawn {seen['milliseconds']:.0f} ms after the navigation began")


def test_neither_tiles_nor_names_overlap_and_names_are_whole(seen):
    assert len(seen["tiles"]) > 700
    for at in (seen, seen["at_390"], seen["at_800"], seen["at_1440"]):
        assert_apart(at["tiles"], at["map"])
        assert_apart(at["labels"], at["map"])
        assert [label for label in at["labels"] if label["out"] > 0] == []
        assert at["overflow"] <= 0


def test_every_layer_is_named(seen):
    parts = {part for label in seen["labels"] for part in re.split(r"[.\n]", label["text"])}
    assert {str(layer) for layer in range(LAYERS)} <= parts


def test_area_is_bytes(seen):
    large = [tile for tile in seen["tiles"] if bytes_of(tile) > 1e6]
    densities = sorted(tile["width"] * tile["height"] / bytes_of(tile) for tile in large)
    assert densities[-1] / densities[0] < 1.03
    covered = sum(tile["width"] * tile["height"] for tile in seen["tiles"])
    assert covered / (seen["map"]["width"] * seen["map"]["height"]) > 0.99


def test_colour_is_role_dtype_or_source_file(seen):
    assert set(seen["legend"].split("\n")) == {"attention", "embedding", "head", "mlp", "norm"}
    roles = {tile["title"].split(" ")[0]: tile["color"] for tile in seen["tiles"]}
    assert roles["model.layers.3.self_attn.q_proj.weight"] == roles["model.layers.9.self_attn.o_proj.weight"]
    assert roles["model.layers.3.self_attn.q_proj.weight"] != roles["model.layers.3.mlp.up_proj.weight"]
    assert set(seen["dtype_legend"].split("\n")) == {"BF16", "F16", "F32"}
    colours = {tile["title"].split(" ")[0]: tile["color"] for tile in seen["dtype_tiles"]}
    assert colours["lm_head.weight"] != colours["model.embed_tokens.weight"]
    assert len(seen["files_legend"].split("\n")) == 4
    assert len({tile["color"] for tile in seen["files_tiles"]}) == 4


def test_search_lights_what_it_finds(seen):
    assert seen["count"].startswith("1 tensor,")
    lit = [tile["title"] for tile in seen["searched_tiles"] if not tile["missed"]]
    assert [title.split(" ")[0] for title in lit] == ["model.layers.7.mlp.up_proj.weight"]
    assert "model-00001-of-00004.safetensors" in seen["found_details"]


def test_a_click_shows_provenance(seen):
    name = seen["clicked"].split(" ")[0]
    for part in (name, "dtype", "shape", "shown in", "source", "bytes in"):
        assert part in seen["clicked_details"]


def test_what_is_too_small_to_draw_is_looked_into(seen):
    assert "› layers › 7 " in seen["small_path"]
    assert seen["home_path"].startswith("model ") and " › " not in seen["home_path"]


def test_the_name_of_a_module_opens_it(seen):
    path = seen["label_path"].rsplit(" ", 2)[0].split(" › ")
    assert seen["label"].split(".") == path[-len(seen["label"].split(".")):]


def test_layers_lie_in_order_row_by_row(seen):
    first = {}
    for tile in seen["tiles"]:
        parts = tile["title"].split(" ")[0].split(".")
        if parts[:2] == ["model", "layers"]:
            first.setdefault(int(parts[2]), (round(tile["y"]), tile["x"]))
    places = [first[layer] for layer in sorted(first)]
    assert places == sorted(places)


def test_addresses_lead_in_and_back_and_keys_alone_are_enough(seen):
    assert seen["linked"].startswith("model › model › layers › 7 ") and seen["back"] == seen["linked"]
    assert seen["focused"].split(" ")[0] == seen["opened"]
    assert seen["up"].startswith("model › model › layers ") and seen["slash"] == "search"


def test_the_page_says_sums_what_is_not_found_and_what_made_it(seen):
    assert "No tensor has “no such tensor”" in seen["nothing"]
    assert seen["modules"].split("\n")[0] == "Modules" and "lm_head" in seen["modules"]
    assert seen["footer"].startswith("ckptfs ") and "--html" in seen["footer"]
    assert seen["dark"] == "rgb(22, 24, 27)"


def test_a_name_is_never_markup(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    names = [f"model.layers.7.mlp.up_proj.weight", "model.layers.7.input_layernorm.weight", HOSTILE]
    write_sparse(model / "model.safetensors", [(name, [64, 64]) for name in names])
    (model / "config.json").write_text('{"model_type": "unknown"}')
    seen = look(model, tmp_path)
    assert seen["errors"] == [] and len(seen["requests"]) == 1
    assert any(tile["title"].startswith(HOSTILE) for tile in seen["tiles"])
