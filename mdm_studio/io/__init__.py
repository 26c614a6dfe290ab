"""Files in and out: images, label maps, masks, tables, caches, classifiers. No torch, no Qt."""
