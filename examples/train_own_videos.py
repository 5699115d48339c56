"""Train a network on a folder of videos with Lightning's Trainer, then test it.

The folder contains ``train/<class>/*.mp4`` and ``val/<class>/*.mp4``. Run it with
``python train_own_videos.py VIDEOS [EPOCHS]``.
"""

import sys

import vidpool


def main(root: str, epochs: int = 20) -> None:
    """Train and test; the checkpoints, metrics and reports are in ``runs/own_videos``."""
    data = vidpool.VideoFolderDataModule(
        root, frames=8, stride=2, crop=112, short_side=128, batch_size=4
    )
    classifier = vidpool.VideoClassifier(
        "r3d_18", num_classes=data.num_classes, pooling="soft", lr=0.01, warmup_epochs=1
    )
    trainer = vidpool.make_trainer("runs", name="own_videos", max_epochs=epochs)
    trainer.fit(classifier, data)
    trainer.test(classifier, data, ckpt_path="best")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
