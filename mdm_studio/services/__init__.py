"""What the app can do, without a window: fitting, prediction, pretraining jobs."""
