"""Encoders in the forms that others read: timm, transformers, torch.export, ONNX, and repositories on a hub."""
