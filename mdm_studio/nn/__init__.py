"""Networks: modules only, no files and no training."""
