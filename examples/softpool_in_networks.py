"""Use SoftPool in a custom network, in a torchvision network and in a timm network.

Run it with ``python softpool_in_networks.py``; the timm part needs ``pip install timm``.
"""

import timm
import torch
import torchvision
from torch import nn

import vidpool

# 1. A custom network: SoftPool3d takes the arguments of nn.MaxPool3d.
network = nn.Sequential(
    nn.Conv3d(3, 16, kernel_size=3, padding=1),
    nn.ReLU(),
    vidpool.SoftPool3d(kernel_size=3, stride=2, padding=1),
    nn.AdaptiveAvgPool3d(1),
    nn.Flatten(),
    nn.Linear(16, 10),
)
clips = torch.rand(2, 3, 8, 64, 64)  # (N, C, T, H, W)
print("custom network:", network(clips).shape)

# 2. A torchvision network: its pooling layers become SoftPool layers, its weights stay.
network = torchvision.models.video.s3d()
replaced = vidpool.swap_pooling(network)
print(f"torchvision s3d: replaced {', '.join(swap.name for swap in replaced)}")

# 3. A timm network.
network = timm.create_model("resnet18", num_classes=10)
vidpool.swap_pooling(network)
print("timm resnet18:", network(torch.rand(2, 3, 64, 64)).shape, network.maxpool)
