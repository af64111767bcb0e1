"""Lightning .ckpt files from its own Trainer.

    gen_lightning.py OUT

The reference is what save_pretrained writes for the model inside the LightningModule.
"""
import logging
import sys
import warnings

import lightning
import torch

import hf
from case import Case

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")


class Module(lightning.LightningModule):
    def __init__(self, model, name):
        super().__init__()
        self.save_hyperparameters({"lr": 1e-3, "name": name})
        setattr(self, name, model)
        self.attribute = name

    def training_step(self, batch, index):
        return getattr(self, self.attribute)(input_ids=batch, labels=batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.0, weight_decay=0.0)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randint(3, 200, (2, 8)), batch_size=1)


def one(out, name, family, dtype, attribute="model", special="", **changes):
    made = hf.model(hf.config(family, **changes), dtype)
    reference, config = hf.saved(made)
    case = Case(out, f"lightning-{name}", system="lightning", family=family, packages=("torch", "lightning", "transformers"))
    case.config(config)
    trainer = lightning.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=case.folder)
    trainer.fit(Module(made, attribute))
    trainer.save_checkpoint(case.source / "epoch=0-step=1.ckpt")
    case.done(reference, by="save_pretrained of the model inside", source="source/epoch=0-step=1.ckpt", special=special)


def main(out):
    one(out, "llama-f32", "llama", torch.float32, special="model. prefix, optimizer, loops and callbacks beside it")
    one(out, "qwen2-tied-bf16", "qwen2", torch.bfloat16, tie_word_embeddings=True, special="tied")
    one(out, "qwen3-module", "qwen3", torch.float32, attribute="module", head_dim=32, special="module. prefix")
    one(out, "llama-policy", "llama", torch.bfloat16, attribute="policy", special="policy. prefix")


if __name__ == "__main__":
    main(sys.argv[1])
