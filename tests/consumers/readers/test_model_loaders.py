"""Libraries that load a directory into a model of their own."""
import accelerate
import torch
import torch.distributed.checkpoint
import torchtitan_llama3

import tensors


def weights(model):
    """With lm_head under its own name even when it is tied."""
    return tensors.from_torch(model.state_dict())


def test_accelerate_loads_the_checkpoint_in_a_model(pair, model):
    with accelerate.init_empty_weights():
        empty = type(model)(model.config).to(model.dtype)
    empty.tie_weights()
    accelerate.load_checkpoint_in_model(empty, pair.shown, device_map={"": "cpu"})
    tensors.assert_equal_bitwise(weights(empty), weights(model))


def test_torchs_hugging_face_reader_loads_the_mount(pair, model):
    want = {name: tensor for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del want["lm_head.weight"]
    got = {name: torch.empty_like(tensor) for name, tensor in want.items()}
    torch.distributed.checkpoint.load(got, storage_reader=torch.distributed.checkpoint.HuggingFaceStorageReader(pair.shown))
    tensors.assert_equal_bitwise(tensors.from_torch(got), tensors.from_torch(want))


def test_torchtitan_starts_a_run_from_the_mount(pair, model):
    """initial_load_in_hf: from_hf of what the mount holds, and back, is what was saved."""
    shape = torchtitan_llama3.model_config(pair.shown)
    adapter = torchtitan_llama3.llama3.Llama3StateDictAdapter(shape, str(pair.shown))
    state = adapter.to_hf(shape.build().to(model.dtype).state_dict())
    torch.distributed.checkpoint.load(state, storage_reader=adapter.get_hf_storage_reader(str(pair.shown)))
    back = adapter.to_hf(adapter.from_hf(dict(state)))
    want = {name: tensor for name, tensor in model.state_dict().items() if name in back}
    tensors.assert_equal_bitwise(tensors.from_torch(back), tensors.from_torch(want))
