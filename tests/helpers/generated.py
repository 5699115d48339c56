"""A datamodule whose clips are made, not read, from what the sampler asks for; a trainer."""

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from vidpool.data.listed import ListedDataModule

CLASSES = 3


def quiet_trainer(**options):
    """A trainer on the CPU that trains and writes nothing."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


class GeneratedClips(Dataset):
    """Clips of coloured noise; the colour is the class."""

    def __init__(self, size):
        self.videos = range(size)

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, requests):
        clips = []
        for request in requests:
            shape = request.shape
            generator = torch.Generator().manual_seed(request.seed)
            size = (3, shape.frames, shape.crop, shape.crop)
            clip = torch.randint(0, 128, size, generator=generator, dtype=torch.uint8)
            clip[request.index % CLASSES] += 100
            clips.append(clip)
        video = torch.tensor([request.index for request in requests])
        return {
            "clip": torch.stack(clips),
            "label": video % CLASSES,
            "video": video,
            "counted": torch.tensor([request.counted for request in requests]),
            "seed": [request.seed for request in requests],
            "requested": len(requests),
            "bad": [],
        }


class Generated(ListedDataModule):
    """`size` clips to train on, 6 to validate on; full clips are of 8 x 32²."""

    class_names = ("red", "green", "blue")

    def __init__(self, size=130, **options):
        super().__init__(
            root=".",
            **{"frames": 8, "crop": 32, "short_side": 32, "batch_size": 2, "num_workers": 0}
            | options,
        )
        self.size = size

    def read_listing(self):
        raise NotImplementedError

    def annotation_files(self):
        raise NotImplementedError

    def train_dataloader(self):
        return self._loader(GeneratedClips(self.size), self.schedule, shuffle=True)

    def val_dataloader(self):
        return self._loader(GeneratedClips(6), self.eval_schedule, shuffle=False)
