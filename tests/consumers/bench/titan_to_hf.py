"""What torchtitan's scripts/checkpoint_conversion/convert_to_hf.py does, in the export type bfloat16: titan_to_hf.py SOURCE OUT CONFIG"""
import shutil
import sys

import torch
import torch.distributed.checkpoint as dcp
from sources import adapter
from torch.distributed.checkpoint import HuggingFaceStorageWriter

source, out, config = sys.argv[1:]
metadata = dcp.FileSystemReader(source).read_metadata().state_dict_metadata
state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
dcp.load(state, checkpoint_id=source)
state = {name: tensor.to(torch.bfloat16) for name, tensor in adapter().to_hf(state).items()}
writer = HuggingFaceStorageWriter(path=out, save_distributed=True, enable_consolidation=True, thread_count_consolidation=2,
                                  fqn_to_index_mapping={name: 1 for name in state})
dcp.save(state, storage_writer=writer)
shutil.copy(config, out)
