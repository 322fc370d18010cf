from .write import write_static_map as write_static_map
