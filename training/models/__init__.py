"""The models: scaling, bodies, fitting and ONNX export."""
