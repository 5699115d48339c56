"""A network whose features are known: one sees red, one green, one blue."""

import torch
from torch import nn

from vidpool.models.common import VideoNet
from vidpool.train.classifier import VideoClassifier


class ColourNet(VideoNet):
    """Each class is the mean of one colour's map; `mix` and `look` pass on what is above 0."""

    head = "fc"

    def __init__(self):
        super().__init__(dropout=0.0, gradient_checkpointing=False)
        self.look = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.ReLU(inplace=True))
        self.mix = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            for layer in (self.look[0], self.mix[0], self.fc):
                layer.weight.copy_(torch.eye(3).view(layer.weight.shape))

    def _embed(self, x):
        return self.mix(self.look(x)).mean((2, 3, 4))


def colour_classifier():
    classifier = VideoClassifier("r3d_18", num_classes=3, width=1)
    classifier.model = ColourNet()
    return classifier.eval()


def red_and_blue(side=8):
    """A clip (1, 3, 4, side, side): red above on the left, blue below on the right, in frame 2."""
    clip = torch.zeros(1, 3, 4, side, side)
    half = side // 2
    clip[:, 0, 2, :half, :half] = 1
    clip[:, 2, 2, half:, half:] = 1
    return clip
