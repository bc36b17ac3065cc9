"""Images: from a lock to an image that was seen to import every node class of it."""
