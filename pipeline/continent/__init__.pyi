from .meeting import zone_weights as zone_weights
