"""How exact the kernels of every device have to be, and on which values."""

import torch

# a result's rounding, and the arithmetic's in float32
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}

# a dtype, and what makes of normally distributed numbers values that are hard for it
EXTREMES = {
    "1e4": (torch.float32, lambda x: 1e4 + x),
    "-1e4": (torch.float32, lambda x: -1e4 + x),
    "wide": (torch.float32, lambda x: 100 * x),
    "huge": (torch.float32, lambda x: 1e30 * x),
    "largest": (torch.float32, lambda x: 3.4e38 * x.sign()),
    "denormal": (torch.float32, lambda x: 1e-40 * x),
    "huge float64": (torch.float64, lambda x: 1e300 * x),
    "largest float16": (torch.float16, lambda x: 6e4 * x.sign()),
    "denormal float16": (torch.float16, lambda x: 1e-7 * x),
    "largest bfloat16": (torch.bfloat16, lambda x: 3.3e38 * x.sign()),
    "wide bfloat16": (torch.bfloat16, lambda x: 1e4 * x),
}
