"""run_lightning.py FOLDER: two steps of Lightning's Trainer, each saved by its ModelCheckpoint, and `last.ckpt`."""
import sys

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import tiny


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = tiny.model()

    def training_step(self, batch, index):
        return self.model(input_ids=batch, labels=batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randint(3, 200, (2, 8)), batch_size=1)


def train(folder):
    saves = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, save_last=True)
    trainer = lightning.Trainer(max_steps=2, accelerator="cpu", logger=False, callbacks=[saves], enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Module())


if __name__ == "__main__":
    train(sys.argv[1])
