from .files import page_files as page_files
from .layers import QUALITY as QUALITY
from .layers import Label as Label
from .layers import describe_layer as describe_layer
from .layers import label_colours as label_colours
from .layers import layers_of as layers_of
from .layers import rgb as rgb
from .serve import serve_map as serve_map
