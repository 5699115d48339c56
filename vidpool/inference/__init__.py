"""Using a trained network: prediction, features and export."""

from vidpool.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
