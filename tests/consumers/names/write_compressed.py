"""Writes the DCP of a folder's pytorch_model.bin as torch's ZStandard extension compresses it."""

import sys

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._extension import ZStandard

state, folder = torch.load(sys.argv[1], weights_only=True), sys.argv[2]
dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, _extensions=[ZStandard()]), no_dist=True)
