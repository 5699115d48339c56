"""Checkpoints of narrow networks whose logits differ from clip to clip."""

import torch
from torch import nn

from vidpool.train.classifier import VideoClassifier
from vidpool.train.importing import save


def make_checkpoint(path, backbone, frames=4, crop=32, **settings):
    """Write a checkpoint of six classes; batch norm knows statistics of a few batches."""
    torch.manual_seed(0)
    classifier = VideoClassifier(backbone, num_classes=6, **settings)
    classifier.description = {
        "class_names": list("abcdef"),
        "preprocessing": {
            "frames": frames,
            "stride": 2,
            "short_side": crop + 4,
            "crop": crop,
            "clips": 2,
            "crops": 1,
            "mean": [0.45] * 3,
            "std": [0.225] * 3,
        },
    }
    for module in classifier.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.momentum = 0.5
    classifier.train()
    with torch.no_grad():
        for _ in range(5):
            clips = torch.randn(4, 3, frames, crop, crop) + torch.randn(4, 3, 1, 1, 1)
            classifier(clips)
    save(classifier.eval(), path)
    return path
