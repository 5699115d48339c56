"""Training and testing: the LightningModule, its metrics and its reports."""
