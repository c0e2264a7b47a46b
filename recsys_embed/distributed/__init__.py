"""Training on several processes and devices: tables that TorchRec spreads over ranks, of which rank 0 leads."""
