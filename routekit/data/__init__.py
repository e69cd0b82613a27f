"""Image sets, their splits and batched augmentation."""
