"""Tensors <-> bytes: one file per format, never pickle. Pure: bytes in, bytes out; files are the spool's business."""
