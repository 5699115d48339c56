"""Video action recognition with PyTorch Lightning, where every pooling layer can be a SoftPool.

Importing the package is cheap: PyTorch is imported by the subpackages that need it.
"""

__version__ = "0.1.0"
