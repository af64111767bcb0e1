"""run_trainer.py FOLDER: two steps of transformers' Trainer, each saved, as `checkpoint-1` and `checkpoint-2`."""
import sys

import torch
import transformers

import tiny


def train(folder):
    rows = [{"input_ids": torch.tensor([1, 5, 7]), "labels": torch.tensor([1, 5, 7])}] * 4
    arguments = transformers.TrainingArguments(
        folder, max_steps=2, save_steps=1, learning_rate=0.1, per_device_train_batch_size=1, report_to=[], use_cpu=True
    )
    transformers.Trainer(tiny.model(), arguments, train_dataset=rows).train()


if __name__ == "__main__":
    train(sys.argv[1])
