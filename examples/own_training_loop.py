"""Train with a plain PyTorch loop: vidpool's datasets and networks without Lightning.

Run it with ``python own_training_loop.py VIDEOS [EPOCHS]``; see train_own_videos.py for the folder.
"""

import sys

import torch
from torch.nn import functional as F

import vidpool


def main(root: str, epochs: int = 5) -> None:
    """Print the mean training loss of each epoch and the accuracy on the validation videos."""
    data = vidpool.VideoFolderDataModule(root, frames=8, crop=112, short_side=128, batch_size=4)
    network = vidpool.VideoClassifier("r3d_18", num_classes=data.num_classes, pooling="soft")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(epochs):
        losses = []
        for batch in data.train_dataloader():
            # the classifier normalizes uint8 clips (N, C, T, H, W) itself
            loss = F.cross_entropy(network.train()(batch["clip"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}")
    network.eval()
    with torch.inference_mode():
        right = [
            network(batch["clip"]).argmax(1) == batch["label"] for batch in data.val_dataloader()
        ]
    print(f"top-1: {torch.cat(right).float().mean():.1%}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
