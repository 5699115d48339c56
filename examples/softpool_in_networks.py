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

# 2. A torchvision network: every max and average pooling layer becomes a SoftPool in place.
video_network = torchvision.models.video.mc3_18()
image_network = torchvision.models.resnet18()
for name, model in {"mc3_18": video_network, "resnet18": image_network}.items():
    replaced = vidpool.swap_pooling(model)
    print(f"torchvision {name}: replaced {', '.join(swap.name for swap in replaced) or 'nothing'}")

# 3. A timm network.
timm_network = timm.create_model("resnet18", num_classes=10)
vidpool.swap_pooling(timm_network)
print("timm resnet18:", timm_network(torch.rand(2, 3, 64, 64)).shape, timm_network.maxpool)
