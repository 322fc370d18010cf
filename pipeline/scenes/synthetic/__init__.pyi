from .archive import write_catalog as write_catalog
from .palette import PERIOD as PERIOD
from .picture import before_after_picture as before_after_picture
from .sensor import RenderedScene as RenderedScene
from .sensor import render_scenes as render_scenes
from .world import DemoWorld as DemoWorld
from .world import generate_world as generate_world
from .world import write_demo_world as write_demo_world
