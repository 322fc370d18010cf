from .serve import serve_map as serve_map
