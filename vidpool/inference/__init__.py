"""Using a trained network: prediction and export."""
