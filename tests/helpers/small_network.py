"""A network of one convolution, for trainings whose network is not at issue."""

from torch import nn

from vidpool.models import register_model
from vidpool.train.classifier import VideoClassifier


class SmallNetwork(nn.Module):
    """Convolution, batch norm, pooling, dropout and a linear layer."""

    def __init__(self, *, num_classes, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(4)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, clip):
        """Return the logits."""
        return self.fc(self.dropout(self.pool(self.norm(self.conv(clip)).relu()).mean((2, 3, 4))))


def small_network():
    """Register the network until the test ends and return its name."""
    register_model(SmallNetwork)
    return SmallNetwork.__name__


def small_classifier(num_classes=3, **settings):
    """Return a classifier over the network."""
    return VideoClassifier(small_network(), num_classes, **settings)
